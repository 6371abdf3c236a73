"""The command line: one file per command; flags and rendering, nothing else."""
