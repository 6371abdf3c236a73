"""The questions, a module a noun: `CASES` maps a case's name to its requests. Names are unique over all modules.

Each module's answers of the real engine are in recorded/<module>.json. Needs the image busybox in the engine, and names of
its own (conf-*), which a case removes.
"""

from __future__ import annotations

import importlib
import pkgutil

from tests.conformance.ask import Request

MODULES: dict[str, dict[str, list[Request]]] = {
    found.name: importlib.import_module(f"{__name__}.{found.name}").CASES for found in pkgutil.iter_modules(__path__)
}
