"""What a solved build becomes outside of the store: archives, file trees, images in registries."""
