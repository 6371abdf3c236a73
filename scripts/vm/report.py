#!/usr/bin/env python3
"""What a run in the virtual machine came to: report.py RESULTS COMPAT [TEST...]. A run of everything goes into COMPAT's table.

RESULTS has junit.xml, facts.json, how many tests were collected, and pytest's exit status; the table stands between two marks in COMPAT.
"""

import datetime as dt
import json
import pathlib
import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter

BEGIN, END = "<!-- test-vm -->", "<!-- /test-vm -->"


def outcomes(junit: pathlib.Path) -> tuple[Counter, list[str], Counter]:
    """Counts, the names of what failed, and how often each reason skipped a test."""
    counts, failed, reasons = Counter(), [], Counter()
    for case in ET.parse(junit).iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            counts["failed"] += 1
            failed.append(f"{case.get('classname')}.{case.get('name')}")
        elif skipped is not None:
            counts["skipped"] += 1
            reasons[re.sub(r"^Skipped: ", "", skipped.get("message") or "")] += 1
        else:
            counts["passed"] += 1
    return counts, failed, reasons


def table(facts: dict, tests: str, counts: Counter, failed: list[str], reasons: Counter) -> str:
    unreached = max(0, facts["collected"] - counts.total())
    day = dt.datetime.now(dt.UTC).date().isoformat()
    why = "; ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items())) or "nothing"
    bad = ", ".join(sorted(name.removeprefix("tests.system.") for name in failed)) or "nothing"
    return "\n".join([
        BEGIN, "| date | system | kernel | tests | passed | failed | skipped | not reached in time |", "|---|---|---|---|---:|---:|---:|---:|",
        f"| {day} | {facts['system']}, Python {facts['python']} | {facts['kernel']} | {tests} | {counts['passed']} | {counts['failed']} | {counts['skipped']} | {unreached} |",
        "", f"Failed: {bad}. Skipped: {why}.", END,
    ])  # fmt: skip


def main() -> None:
    results, compat = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    if not (results / "junit.xml").exists():
        sys.exit(f"the virtual machine brought no results back: see {results}/log and {results.parent}/serial.log")
    facts = json.loads((results / "facts.json").read_text()) | {"collected": int((results / "collected").read_text())}
    counts, failed, reasons = outcomes(results / "junit.xml")
    made = table(facts, ", ".join(sys.argv[3:]) or "all", counts, failed, reasons)
    print(made)
    text = compat.read_text()
    if not sys.argv[3:] and BEGIN in text:
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        compat.write_text(before + made + after)
        print(f"written into {compat}")
    status = (results / "status").read_text().strip()
    sys.exit(0 if status == "0" else f"failed: {', '.join(failed) or 'see the log'} (pytest ended with {status}; {results}/log)")


if __name__ == "__main__":
    main()
