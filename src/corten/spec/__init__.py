"""The vocabulary: frozen values, their parsers and serialisers. No I/O in this package."""
