"""Speaking to image registries, and copying images between them and the store."""
