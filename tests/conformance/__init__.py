"""The same questions put to Corten and to the real Docker Engine, whose answers are in recorded/.

`cases/` has the questions, `ask.py` puts them, `shape.py` says what of an answer is compared, `differences.py` lists where Corten differs and why,
`record.py` asks the real engine, `test_conformance.py` asks Corten (or, with CORTEN_CONFORMANCE_SOCKET, any other engine).
"""
