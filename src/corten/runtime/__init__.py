"""The OCI runtime: plan, operations, init, monitor, launcher. Single-threaded, no event loop, light imports."""
