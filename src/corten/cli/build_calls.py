"""How `corten build --check` and `--call` show what the engine has found. Rendering only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from corten.cli.tables import table
from corten.spec.source_excerpt import excerpt


def show_check(found: dict[str, Any], name: str) -> int:
    """As docker build does; the exit code."""
    warnings = found.get("warnings") or []
    count = len(warnings)
    said = "no warnings found." if not count else "1 warning has been found!" if count == 1 else f"{count} warnings have been found!"
    print(f"Check complete, {said}")
    for warning in warnings:
        page = f" - {warning['url']}" if "url" in warning else ""
        print(f"\nWARNING: {warning['ruleName']}{page}\n{warning['detail']}")
        _show_place(found, warning["location"], name)
    error = found.get("buildError")
    if error:
        print(f"\nERROR: {error['message']}")
        _show_place(found, error["location"], name)
    return 1 if warnings or error else 0


def _show_place(found: dict[str, Any], location: dict[str, Any], name: str) -> None:
    ranges = location.get("ranges")
    if ranges:
        print(excerpt(found["sources"][0], ranges[0]["start"]["line"], ranges[-1]["end"]["line"], name=name))


def show_outline(found: dict[str, Any], _name: str) -> int:
    for title, key in (("TARGET", "name"), ("DESCRIPTION", "description")):
        if key in found:
            print(f"{title}: {found[key]}")
    arguments = [(each["name"], each.get("value", ""), each.get("description", "")) for each in found.get("args", [])]
    _show_table(("BUILD ARG", "VALUE", "DESCRIPTION"), arguments)
    for title, key in (("SECRET", "secrets"), ("SSH", "ssh")):
        _show_table((title, "REQUIRED"), [(each["name"], "true" if each.get("required") else "") for each in found.get(key, [])])
    return 0


def show_targets(found: dict[str, Any], _name: str) -> int:
    rows = []
    for target in found["targets"]:
        default = "(default)" if target.get("default") else ""
        rows.append((f"{target.get('name', '')} {default}".strip(), target.get("description", "")))
    print(table(("TARGET", "DESCRIPTION"), rows))
    return 0


def _show_table(heads: tuple[str, ...], rows: list[Any]) -> None:
    if rows:
        print(table(heads, rows))


SHOWN: dict[str, Callable[[dict[str, Any], str], int]] = {"check": show_check, "outline": show_outline, "targets": show_targets}
