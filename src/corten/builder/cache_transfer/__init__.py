"""The build cache on its way: to and from registries, S3, folders and images. Format: docs/build-cache.md."""
