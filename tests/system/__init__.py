"""Tests on the real kernel, with the real clients, as root."""
