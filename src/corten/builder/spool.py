"""How the contents of a context's files lie in its folder: small ones one after the other in one file, each large one in a file of its own, by number."""

SPOOL = "spool"
LARGE = 1 << 18  # bytes
