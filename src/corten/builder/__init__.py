"""Dockerfile to image: parse > instructions > expand > convert > graph > solve > export."""
