"""What somebody may have meant who wrote a word that there is not. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

_MOST_OPTIONS = 500  # whoever has more of them is past being helped
_FARTHEST = 2  # letters to change, as BuildKit (and HCL) have it


def near_miss(word: str, options: Iterable[str], *, same_case: bool = True) -> str:
    """The nearest option, or nothing. Without `same_case` it comes in the case that the word is written in."""
    wanted = word if same_case else word.lower()
    best, found = _FARTHEST + 1, ""
    for option in islice(options, _MOST_OPTIONS):
        offered = option if same_case else option.lower()
        if offered == wanted:
            return ""  # the word is right: something else is wrong
        far = _distance(wanted, offered)
        if far < best:
            best, found = far, offered
    return found.upper() if found and not same_case and word.isupper() else found


def did_you_mean(word: str, options: Iterable[str], *, same_case: bool = True) -> str:
    """To be put behind an error."""
    found = near_miss(word, options, same_case=same_case)
    return f" (did you mean {found}?)" if found else ""


def _distance(one: str, other: str) -> int:
    """Levenshtein's, as far as it matters here."""
    if abs(len(one) - len(other)) > _FARTHEST:
        return _FARTHEST + 1
    row = list(range(len(other) + 1))
    for count, letter in enumerate(one, 1):
        above, row[0] = row[0], count
        for at, against in enumerate(other, 1):
            above, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, above + (letter != against))
    return row[-1]
