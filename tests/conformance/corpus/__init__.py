"""The corpus of Dockerfiles, a feature each: what the real engine's BuildKit makes of them is recorded (record_corpus.py), and held to here.

One table: `language` has what is seen in config, history, findings and refusals, `files` what is seen in the files. Of every case everything
is recorded and compared. Not here: what the Dockerfile frontend of that release does not know yet (--parents, --security).
"""

from __future__ import annotations

from tests.conformance.corpus import files, language
from tests.conformance.corpus.case import Case

CASES: dict[str, Case] = {**language.CASES, **{f"files: {name}": case for name, case in files.CASES.items()}}
