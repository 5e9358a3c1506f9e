"""What treatment did against holdout, campaign by campaign: from cohorts to what can be said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bandits.lift import (
    ALPHA,
    MIN_PAYERS,
    Count,
    Interval,
    Lift,
    is_mismatched,
    mismatch_evidence,
    rate_lift,
    value_path,
)
from decisioning.cohorts import Cohort, Metric, Outcome

LOOKS: Final = 60  # of a picture over time
MISMATCH_LOOKS: Final = 200
MAX_CONTRADICTED: Final = 0.1  # of held-out people; a share that has grown since contradicts fewer
PERCENT: Final = "\N{NO-BREAK SPACE}%"
TITLES: Final[dict[Metric, str]] = {
    "conversion": "conversion",
    "value": "value per person",
    "retention": "retention",
    "unsubscribed": "unsubscribed",
}


@dataclass(frozen=True, slots=True)
class Group:
    """People of one group whose window has passed, and their mean: a rate, or a value per person."""

    people: int
    mean: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of one campaign.

    Attributes
    ----------
    treated, held
        The groups.
    waiting
        How many people's windows have not passed.
    lift
        Treatment against holdout.
    path
        The difference as it was known over time: (milliseconds since the epoch, interval).
    why_not
        Why nothing can be said; empty where something can.
    """

    metric: Metric
    treated: Group
    held: Group
    waiting: int
    lift: Lift
    path: tuple[tuple[int, Interval], ...]
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One campaign.

    Attributes
    ----------
    treated, held
        People who came in, whether or not their window has passed.
    share
        Of the treated, as configured.
    mismatched
        Whether at any time the sizes contradicted that share (error rate 0.1 %): then nothing here is to be trusted.
    contradicted
        Whether the log was made with another holdout than the configuration's: then neither.
    """

    name: str
    share: float
    treated: int
    held: int
    mismatched: bool
    contradicted: bool
    measured: tuple[Measured, ...]

    def warnings(self) -> list[str]:
        """What speaks against trusting it, in sentences."""
        said = [f"{self.treated:,} people treated, {self.held:,} held out (meant: {100 * (1 - self.share):.3g} %)."]
        if self.mismatched:
            said.append(
                "ALARM: the sizes contradict the configured share (sample-ratio mismatch), so the groups are not alike."
            )
        if self.contradicted:
            said.append(
                "ALARM: the log was made with another holdout (share or salt); give the configuration it was made with."
            )
        return said

    @property
    def answers(self) -> bool:
        """Whether anything can be said that is to be trusted."""
        return not self.mismatched and not self.contradicted and any(not one.why_not for one in self.measured)


def compare(cohort: Cohort, alpha: float = ALPHA) -> Comparison:
    """Everything about one campaign; each interval errs with probability `alpha` over all looks."""
    groups = np.array(cohort.groups, np.bool_)
    treated = np.cumsum(groups)
    looks = _looks(len(groups), MISMATCH_LOOKS)
    evidence = [mismatch_evidence(int(treated[n - 1]), n - int(treated[n - 1]), cohort.share) for n in looks]
    return Comparison(
        name=cohort.name,
        share=cohort.share,
        treated=int(groups.sum()),
        held=int((~groups).sum()),
        mismatched=any(map(is_mismatched, evidence)),
        contradicted=cohort.contradicted > MAX_CONTRADICTED,
        measured=tuple(
            _measured(metric, outcomes, cohort.waiting[metric], cohort.share, alpha)
            for metric, outcomes in cohort.outcomes.items()
        ),
    )


COLUMNS: Final = ("metric", "treatment", "holdout", "difference", "low", "high", "relative", "low", "high", "")


def cells(one: Measured) -> list[str]:
    """A row of a table, with `COLUMNS` above it."""
    groups = [
        f"{amount(one.metric, group.mean)} of\N{NO-BREAK SPACE}{group.people:,}" for group in (one.treated, one.held)
    ]
    notes = [f"{one.waiting:,} wait"] if one.waiting else []
    if one.why_not:
        return [TITLES[one.metric], *groups, *[""] * 6, one.why_not]
    if one.lift.adjusted:
        notes.append("adjusted by the value before")
    difference, relative = one.lift.difference, one.lift.relative
    return [
        TITLES[one.metric],
        *groups,
        *(amount(one.metric, value, signed=True) for value in (difference.mid, difference.low, difference.high)),
        *(percent(value) for value in (relative.mid, relative.low, relative.high)),
        ", ".join(notes),
    ]


def amount(metric: Metric, value: float, *, signed: bool = False) -> str:
    """A mean or a difference of means as it is read: rates in percent, values as they are."""
    if not math.isfinite(value):
        return "?"
    sign = "+" if signed else ""
    return f"{value:{sign},.2f}" if metric == "value" else f"{100 * value:{sign}.2f}{PERCENT}"


def percent(value: float) -> str:
    """A relative difference; `?` where it has no bound."""
    return f"{100 * value:+.1f}{PERCENT}" if math.isfinite(value) else "?"


def _measured(metric: Metric, outcomes: Sequence[Outcome], waiting: int, share: float, alpha: float) -> Measured:
    treated = np.array([outcome.treated for outcome in outcomes], np.bool_)
    value = np.array([outcome.value for outcome in outcomes], np.float64)
    looks = _looks(len(outcomes), LOOKS)
    if metric == "value":
        before = np.array([outcome.before for outcome in outcomes], np.float64)
        path = value_path(treated, value, share, before)
        lifts = [path.lift(people, alpha) for people in looks]
    else:
        did = value > 0.0
        counts = (np.cumsum(mask).tolist() for mask in (treated, treated & did, did))
        people_treated, did_treated, did_all = (dict(enumerate(count, 1)) for count in counts)
        lifts = [
            rate_lift(
                Count(people_treated[n], did_treated[n]),
                Count(n - people_treated[n], did_all[n] - did_treated[n]),
                share,
                alpha,
                common=metric == "retention",
            )
            for n in looks
        ]
    groups = _group(value[treated]), _group(value[~treated])
    lift = lifts[-1] if lifts else rate_lift(Count(0, 0), Count(0, 0), share, alpha)
    over_time = tuple((outcomes[n - 1].at_ms, one.difference) for n, one in zip(looks, lifts, strict=True))
    return Measured(metric, *groups, waiting, lift, over_time, _why_not(*groups, waiting, lift))


def _why_not(treated: Group, held: Group, waiting: int, lift: Lift) -> str:
    if not treated.people + held.people:
        return f"nobody's window has passed, {waiting:,} wait" if waiting else "nobody came in"
    if not treated.people or not held.people:
        return f"nobody of the {'treated' if held.people else 'held out'} yet"
    if math.isinf(lift.difference.low):
        return f"too few: an interval needs {MIN_PAYERS} people with a value in each group"
    return ""


def _group(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Group:
    return Group(len(values), float(values.mean()) if len(values) else math.nan)


def _looks(people: int, most: int) -> list[int]:
    """Sample sizes to look at: the last is all of them."""
    return sorted({-(-people * step // most) for step in range(1, most + 1)} - {0})
