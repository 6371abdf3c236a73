"""Everything on disk: blobs, layers, snapshots (returns mounts, never mounts), the state database."""
