"""One service per noun of the engine. Knows nothing of HTTP."""
