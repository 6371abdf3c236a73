"""The launcher's table of jobs: every name that the code asks for is in it, and every entry is a function."""

import ast
import importlib
import os

import corten
from corten.api.jobs import JOBS


def names_in_code():
    """The values of every `..._JOB = "name"` (also several in one assignment) in the sources."""
    for folder, _, files in os.walk(os.path.dirname(corten.__file__)):
        for name in (name for name in files if name.endswith(".py")):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                for node in ast.parse(file.read()).body:
                    if not isinstance(node, ast.Assign):
                        continue
                    target, value = node.targets[0], node.value
                    pairs = zip(target.elts, value.elts, strict=True) if isinstance(target, ast.Tuple) else [(target, value)]
                    yield from (ast.literal_eval(right) for left, right in pairs if isinstance(left, ast.Name) and left.id.endswith("_JOB"))


def test_every_job_that_is_asked_for_is_in_the_table_and_no_other():
    found = list(names_in_code())
    assert sorted(found) == sorted(JOBS)


def test_every_entry_is_a_function():
    for target in JOBS.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), target
