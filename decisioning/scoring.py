"""Propensity models as decisions ask them: what they see of a person, and snapshots as scorers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bandits import propensity_fold
from bandits.propensity_score import Scorer
from bandits.snapshot import Snapshot
from decisioning import contexts
from decisioning.localtime import DAY_MS
from decisioning.profile import DAILY, Profile

_CONTEXT: Final = tuple(name for name in contexts.FEATURES if not name.startswith("propensity_"))
OWN: Final = ("successes", "trials", "log_trials")
SHARED: Final = ("sends_7d", "orders_total", *_CONTEXT)
FEATURES: Final = (*OWN, *SHARED)
"""What a model sees: how often its label came true for this person and how often it could have, then
``ln(1 + trials)``, ``ln(1 + sends)`` of the last 7 days, ``ln(1 + orders)`` ever, and what policies see."""
_SENDS, _ORDERS = DAILY.index("sends"), DAILY.index("orders")


@dataclass(frozen=True, slots=True)
class Scored:
    """A propensity model as of one snapshot."""

    version: int
    scorer: Scorer

    @staticmethod
    def of(snapshot: Snapshot) -> Scored:
        """Make a snapshot ready.

        Raises
        ------
        SnapshotError
            If it cannot be read, or was learned from other features.
        """
        return Scored(snapshot.version, propensity_fold.scorer(snapshot, FEATURES))


def shared(profile: Profile, context: Mapping[str, float], now_ms: int) -> list[float]:
    """Features that are the same for all labels; `context` is the named context of a choice."""
    today = now_ms // DAY_MS
    sends = sum(counts[_SENDS] for day, counts in profile.days.items() if today - 7 < day <= today)
    vector: list[float] = contexts.vector_of(context)[: len(_CONTEXT)].tolist()
    return [math.log1p(max(sends, 0.0)), math.log1p(max(profile.totals[_ORDERS], 0.0)), *vector]


def own(profile: Profile, label: str) -> list[float]:
    """Features that are the label's alone."""
    successes, trials = (0.0, 0.0) if profile.tracked is None else profile.tracked.of(label)
    return [successes, trials, math.log1p(trials)]


def row(profile: Profile, label: str, others: list[float]) -> list[float]:
    """All features of one label."""
    return [*own(profile, label), *others]
