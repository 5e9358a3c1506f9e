"""Whether a challenger may take the champion's place: only where the log shows that it is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bandits.evaluate import Estimate, Method, difference
from bandits.intervals import Interval


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of the gate.

    Attributes
    ----------
    allowed
        Whether the challenger may be promoted.
    why
        In one sentence; of a refusal also what would help.
    gain
        How much more a decision of the challenger's earns; None where there is no estimate at all.
    """

    allowed: bool
    why: str
    gain: Estimate | None


def promotion(
    log: Any,
    challenger: Any,
    champion: Any = None,
    *,
    margin: float = 0.0,
    method: Method = "dr",
    interval: Interval = "always_valid",
    alpha: float = 0.05,
) -> Verdict:
    """Judge a challenger by what was logged.

    Parameters
    ----------
    log
        As `bandits.estimate` takes it.
    challenger, champion
        Probabilities of both policies, as `bandits.estimate` takes them; the champion None: the policy that was logged.
    margin
        By how much a decision of the challenger's must earn more, at the lower end of the interval; negative to allow
        one that may be a little worse.
    method, interval, alpha
        Of the estimate. The interval holds under peeking unless told otherwise, so one may ask every day.

    Raises
    ------
    ValueError
        The log or the probabilities are malformed.

    Examples
    --------
    >>> log = {"arm": [0, 1] * 500, "propensity": [0.5] * 1000, "reward": [0.0, 1.0, 0.0, 0.0] * 250}
    >>> promotion(log, {0: 0.1, 1: 0.9}).allowed, promotion(log, {0: 0.9, 1: 0.1}).allowed
    (True, False)
    """
    gain = difference(log, challenger, champion, method, interval=interval, alpha=alpha)
    found = f"{gain.value:+.6g} a decision, between {gain.low:+.6g} and {gain.high:+.6g}"
    if gain.refusal:
        return Verdict(allowed=False, why=f"the log cannot tell: {gain.refusal}", gain=gain)
    if gain.low > margin:
        return Verdict(allowed=True, why=f"the challenger is better: {found}", gain=gain)
    if gain.high <= margin:
        return Verdict(allowed=False, why=f"the challenger is not better: {found}; keep the champion", gain=gain)
    needed = f"not surely above {margin:g}; wait for more decisions, or let the challenger take part in them"
    return Verdict(allowed=False, why=f"the challenger may be better or not: {found}, {needed}", gain=gain)
