"""What is wrong or odd in a configuration file: one value per finding, always with a remedy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

FieldPath = tuple[str | int, ...]

SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """One error or warning about one place of a configuration file.

    Attributes
    ----------
    severity
        An `error` stops every command that reads the file, a `warning` stops none.
    name
        The file as the user named it.
    line, column
        Where the value (or the key, where that is wrong) begins; both count from 1.
    field
        Path of the field, such as `campaigns[0].trigger.delay`; empty for the file itself.
    value
        What is there, shortened; empty where nothing is.
    expected, remedy
        What should be there, and what to do.
    """

    severity: Literal["error", "warning"]
    name: str
    line: int
    column: int
    field: str
    value: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        """One line: `shop.yaml:14:12: error: campaigns[0].trigger.delay: "30x": expected …; try …`."""
        where = f"{self.name}:{self.line}:{self.column}: {self.severity}: "
        subject = ": ".join(part for part in (self.field, self.value) if part)
        said = f"{subject}: " if subject else ""
        return _printable(f"{where}{said}{self.expected}; {self.remedy}")


class ConfigError(ValueError):
    """A configuration that cannot be used; `findings` holds every error that was found in it."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))


def field_name(path: FieldPath) -> str:
    """Write a path as people do: `("campaigns", 0, "id")` is `campaigns[0].id`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.replace("_", "a").replace("-", "a").isalnum():
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=True)}]"
    return text


def shown(value: object) -> str:
    """Give a value as JSON on one line, at most 60 characters of it."""
    text = _printable(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _printable(text: str) -> str:
    """Replace what could break a line or move a cursor."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def closest(word: str, known: Iterable[str]) -> str | None:
    """Find the known word that was probably meant, or None.

    Examples
    --------
    >>> closest("orders_31d", ["orders_1d", "orders_30d"])
    'orders_30d'
    """
    by_case = {candidate.lower(): candidate for candidate in sorted(known)}
    near = difflib.get_close_matches(word.lower(), by_case, n=5, cutoff=0.6)
    if not near:
        return None
    return by_case[min(near, key=lambda candidate: (_edits(word.lower(), candidate), abs(len(candidate) - len(word))))]


def _edits(left: str, right: str) -> int:
    """Levenshtein distance."""
    row = list(range(len(right) + 1))
    for index, character in enumerate(left, 1):
        above, row[0] = row[0], index
        for column, other in enumerate(right, 1):
            above, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, above + (character != other)),
            )
    return row[-1]
