"""What a profile remembers of a person's sends for propensity models: whose labels are still open, and the record."""

from __future__ import annotations

from typing import Final

import msgspec

MAX_AWAITING: Final = 32


class Awaiting(msgspec.Struct, array_like=True):
    """A send whose labels are not all known: by label, until when its outcome counts (milliseconds)."""

    decision_id: str
    channel: str
    at_ms: int
    until: dict[str, int]


class Tracked(msgspec.Struct, array_like=True, omit_defaults=True):
    """What became of a person's sends.

    Attributes
    ----------
    awaiting
        The latest `MAX_AWAITING` sends with an open label, oldest first.
    record
        Label -> how often it came true, and how often it could have.
    """

    awaiting: list[Awaiting] = []
    record: dict[str, list[float]] = {}

    def of(self, label: str) -> tuple[float, float]:
        """Successes and trials of a label."""
        successes, trials = self.record.get(label, (0.0, 0.0))
        return successes, trials

    def count(self, label: str, successes: float = 0.0, trials: float = 0.0) -> None:
        """Add to a label's record."""
        before = self.of(label)
        self.record[label] = [before[0] + successes, before[1] + trials]

    def add(self, awaiting: Awaiting) -> None:
        """Remember a send; the oldest one goes where there is no room."""
        self.awaiting = [*self.awaiting, awaiting][-MAX_AWAITING:]

    def close(self, now_ms: int) -> None:
        """Forget labels whose time has passed."""
        for one in self.awaiting:
            for label in [label for label, until_ms in one.until.items() if until_ms < now_ms]:
                del one.until[label]
        self.awaiting = [one for one in self.awaiting if one.until]


def merged(mine: Tracked | None, other: Tracked | None) -> Tracked | None:
    """What is tracked of two ids that are one person: records add, sends unite."""
    if mine is None or other is None:
        return mine or other
    both = Tracked(record={label: list(counts) for label, counts in mine.record.items()})
    for label in other.record:
        both.count(label, *other.of(label))
    sends = {one.decision_id: one for one in (*other.awaiting, *mine.awaiting)}
    both.awaiting = sorted(sends.values(), key=lambda one: (one.at_ms, one.decision_id))[-MAX_AWAITING:]
    return both
