"""What package databases say of licences, as SPDX license expressions. Pure.

A name that is not in the table becomes a LicenseRef, whose text is the name as it was found: nothing is guessed. Source: SPDX 2.3 Annex D
(license expressions); the names of Debian's copyright files (machine-readable format 1.0, "Short license names") and of rpm (Fedora's).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NONE = "NOASSERTION"
_IDS = """
0BSD AFL-2.1 AFL-3.0 AGPL-3.0-only AGPL-3.0-or-later Apache-1.1 Apache-2.0 Artistic-1.0 Artistic-1.0-Perl Artistic-2.0 BlueOak-1.0.0 BSD-1-Clause
BSD-2-Clause BSD-3-Clause BSD-4-Clause BSD-4-Clause-UC BSL-1.0 bzip2-1.0.6 CC-BY-3.0 CC-BY-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CC0-1.0 CDDL-1.0 CPL-1.0 curl
EPL-1.0 EPL-2.0 EUPL-1.2 FSFAP FSFUL FSFULLR FTL GFDL-1.1-or-later GFDL-1.2-or-later GFDL-1.3-only GFDL-1.3-or-later GPL-1.0-only GPL-1.0-or-later
GPL-2.0-only GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later HPND ICU IJG Info-ZIP ISC LGPL-2.0-only LGPL-2.0-or-later LGPL-2.1-only LGPL-2.1-or-later
LGPL-3.0-only LGPL-3.0-or-later Libpng libtiff LPPL-1.3c MirOS MIT MIT-0 MIT-CMU MPL-1.1 MPL-2.0 MS-PL NCSA OFL-1.1 OLDAP-2.8 OpenSSL PHP-3.01 PostgreSQL
PSF-2.0 Python-2.0 Ruby SGI-B-2.0 Sleepycat SMLNX SunPro TCL Unicode-DFS-2016 Unlicense Vim W3C WTFPL X11 Zlib zlib-acknowledgement ZPL-2.1
"""
_EXCEPTIONS = frozenset({"Autoconf-exception-3.0", "Bison-exception-2.2", "Classpath-exception-2.0", "GCC-exception-2.0", "GCC-exception-3.1", "Libtool-exception",
                         "Linux-syscall-note", "LLVM-exception", "OpenSSL-exception", "Font-exception-2.0"})  # fmt: skip
_FAMILIES = {"gpl": "GPL", "lgpl": "LGPL", "agpl": "AGPL", "gfdl": "GFDL"}
_OTHER_NAMES = {
    "apache": "Apache-2.0", "apache 2.0": "Apache-2.0", "apache license 2.0": "Apache-2.0", "apache-2": "Apache-2.0", "asl 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0", "bsd-2": "BSD-2-Clause", "bsd-3": "BSD-3-Clause", "bsd-4": "BSD-4-Clause", "expat": "MIT",
    "mit license": "MIT", "mpl-2": "MPL-2.0", "mplv2.0": "MPL-2.0", "psf": "PSF-2.0", "zlib/libpng": "Zlib", "zpl": "ZPL-2.1", "boost": "BSL-1.0",
    "cc0": "CC0-1.0", "ofl": "OFL-1.1", "x11": "X11", "bsd-3-clause-generic": "BSD-3-Clause",
}  # fmt: skip
_KNOWN = {name.lower(): name for name in _IDS.split()} | _OTHER_NAMES
_GNU = re.compile(r"(a?gpl|lgpl|gfdl)-?v?(\d)(?:\.(\d))?(?:\.0)?(\+|-only|-or-later)?", re.IGNORECASE)
_TOKENS = re.compile(r"\s*(\(|\)|,|;|&|/|(?<![\w.-])(?:AND|OR|WITH|and|or|with)(?![\w.-]))\s*")
_OPERATORS = {"and": "AND", "&": "AND", ",": "AND", ";": "AND", "or": "OR", "/": "OR"}
_UNFIT = re.compile(r"[^A-Za-z0-9.-]+")


def expression(text: str) -> tuple[str, dict[str, str]]:
    """(an SPDX expression, what its LicenseRefs stand for). Of no text the expression is NOASSERTION."""
    text = " ".join(text.split())
    if not text or text.upper() in (NONE, "NONE", "UNKNOWN"):
        return NONE, {}
    whole = _identifier(text)
    if whole:
        return whole, {}
    parsed = _parsed(text)
    return parsed or _reference(text)


def all_of(names: Iterable[str]) -> str:
    """Pure text: licences that hold at the same time, each once."""
    return " AND ".join(f"({name})" if re.search(r"\b(or|and)\b|[,/]", name) else name for name in dict.fromkeys(names))


def _reference(text: str) -> tuple[str, dict[str, str]]:
    name = f"LicenseRef-{_UNFIT.sub('-', text).strip('-')[:80] or 'unnamed'}"
    return name, {name: text}


def _identifier(text: str) -> str:
    known = _KNOWN.get(text.lower())
    if known:
        return known
    gnu = _GNU.fullmatch(text)
    if not gnu:
        return ""
    later = "or-later" if gnu[4] in ("+", "-or-later") else "only"
    found = f"{_FAMILIES[gnu[1].lower()]}-{gnu[2]}.{gnu[3] or '0'}-{later}"
    return found if found in _IDS.split() else ""


def _parsed(text: str) -> tuple[str, dict[str, str]] | None:
    """None where the words make no expression."""
    parts = [part.strip() for part in _TOKENS.split(text)]
    references: dict[str, str] = {}
    output: list[str] = []
    depth, operand, excepted = 0, False, False
    for part in filter(None, parts):
        operator = _OPERATORS.get(part.lower())
        if part == "(" and not operand:
            depth += 1
            output.append(part)
        elif part == ")" and operand and depth:
            depth -= 1
            output.append(part)
        elif operator and operand:
            output.append(operator)
            operand = False
        elif part.lower() == "with" and operand:
            output.append("WITH")
            operand, excepted = False, True
        elif operand or operator or part in "()":
            return None
        elif excepted and part not in _EXCEPTIONS:
            name, more = _reference(f"{output[-2]} with {part}")
            output[-2:] = [name]
            references |= more
            operand, excepted = True, False
        else:
            name = part if excepted else _identifier(part)
            if not name:
                name, more = _reference(part)
                references |= more
            output.append(name)
            operand, excepted = True, False
    if depth or not operand:
        return None
    return " ".join(output).replace("( ", "(").replace(" )", ")"), references
