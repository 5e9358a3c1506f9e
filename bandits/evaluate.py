"""What a policy would have earned, from a log of what another one did.

Every estimator is a mean over rows; what each row adds to it, its influence, gives the interval, and paired with that
of the logged policy the interval of the difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from bandits.intervals import INTERVALS, Interval, Spread, bounds
from bandits.logged import Logged
from bandits.policy import Floats
from bandits.reward_model import crossfitted

Method = Literal["ips", "snips", "dr", "dm"]
METHODS: Final = ("ips", "snips", "dr", "dm")
LEAST_ROWS: Final = 30.0  # effective ones, below which no interval means much
LARGEST_SHARE: Final = 0.1  # of all weight, on a single row
LEAST_OVERLAP: Final = 0.9
LEAST_REWARDED: Final = 5  # rows with a reward and a weight
_SURE: Final = 4.0  # standard errors


@dataclass(frozen=True, slots=True)
class Estimate:
    """The value of a policy, or a difference of values, and how far the log can tell.

    Attributes
    ----------
    value
        Reward per decision.
    low, high
        The interval of 1 - alpha around it.
    effective_sample_size
        How many rows of the new policy's own the log is worth: (sum w)**2 / sum w**2, w being the weights (Kish 1965).
    method, interval, alpha
        What was asked for.
    rows
        Of the log.
    overlap
        Share of what the new policy does that the logged one did at all.
    mean_weight
        1 up to chance where the log covers the policy and its propensities are right.
    largest_share
        Share of the largest weight in all weight.
    refusal
        In words why the log cannot answer, and what would help; empty where it can.
    """

    value: float
    low: float
    high: float
    effective_sample_size: float
    method: str = "ips"
    interval: str = "always_valid"
    alpha: float = 0.05
    rows: int = 0
    overlap: float = 1.0
    mean_weight: float = 1.0
    largest_share: float = 0.0
    refusal: str = ""


def estimate(
    log: Any,
    probabilities: Any,
    method: Method = "ips",
    *,
    interval: Interval = "always_valid",
    alpha: float = 0.05,
) -> Estimate:
    """Value of a policy from the log of another one.

    Parameters
    ----------
    log
        Columns `arm`, `propensity`, `reward`, for `dr` and `dm` also `context` or a reward model's `predicted`; or
        records of them, such as examples (`Logged.of` says more).
    probabilities
        The new policy's, float64[n] of the logged arms or float64[n, arms]; a mapping arm -> probability holds for all
        rows. `Logged.chances` says more. `dr` and `dm` want those of all arms: with those of the logged arms alone
        `dr` corrects by a model of the reward whatever the arm.
    method
        `ips` is unbiased, `snips` steadier, `dr` steadiest where rewards can be predicted (without `predicted`, by
        ridge regressions, cross-fitted). `dm` trusts the model alone, and so does its interval.
    interval
        `always_valid` holds whenever one looks, however often; `fixed` is tighter, and for one look.
    alpha
        How often the interval may miss.

    Returns
    -------
    Estimate
        Always with numbers; `refusal` says where they are worth nothing.

    Raises
    ------
    ValueError
        Something is not finite, no probability, of another shape; the log is empty; or the new policy never does what
        was logged, so that there is no estimate at all.

    References
    ----------
    Horvitz and Thompson (1952); Swaminathan and Joachims (2015), "The self-normalized estimator for counterfactual
    learning"; Dudik, Langford and Li (2011), "Doubly robust policy evaluation and learning", equation 2.

    Examples
    --------
    >>> log = {"arm": [0, 1] * 100, "propensity": [0.5] * 200, "reward": [0.0, 1.0] * 100}
    >>> found = estimate(log, {0: 0.25, 1: 0.75}, "snips")
    >>> round(found.value, 3), round(found.effective_sample_size, 3), found.refusal
    (0.75, 160.0, '')
    """
    view = _view(log, probabilities, method, interval, alpha)
    return view.judged(interval, alpha)


def difference(
    log: Any,
    probabilities: Any,
    baseline: Any = None,
    method: Method = "ips",
    *,
    interval: Interval = "always_valid",
    alpha: float = 0.05,
) -> Estimate:
    """How much more a policy would have earned than another one, or than the logged one.

    Both are estimated from the same rows, so what they have in common cancels. Parameters and errors are those of
    `estimate`; `baseline` is like `probabilities`, or None for the policy that was logged. Its effective sample size
    and overlap are the smaller of both.

    Examples
    --------
    >>> log = {"arm": [0, 1] * 100, "propensity": [0.5] * 200, "reward": [0.0, 1.0] * 100}
    >>> round(difference(log, {0: 0.25, 1: 0.75}).value, 3)
    0.25
    """
    view = _view(log, probabilities, method, interval, alpha)
    if baseline is None and method == "dr":
        baseline = view.logged.propensities  # what a model knows of both cancels, where all propensities are known
    other = None if baseline is None else _view(view.logged, baseline, method, interval, alpha)
    found = view.judged(interval, alpha)
    if other is not None:
        known = other.judged(interval, alpha)
        if (bool(known.refusal), -known.effective_sample_size) > (bool(found.refusal), -found.effective_sample_size):
            found = known
    apart = view.minus(other)
    low, high = apart.bounds(found.effective_sample_size, interval, alpha)
    return replace(found, value=apart.value, low=low, high=high)


@dataclass(frozen=True, slots=True)
class _View:
    """A policy as the log shows it.

    Attributes
    ----------
    weight : float64[n]
        How much likelier the row's arm is than it was.
    value
        The estimate: mean of `parts`, or their ratio's.
    parts : float64[n]
        Influence of each row on it.
    rest : float64[n]
        What of each row is multiplied by its weight.
    """

    logged: Logged
    method: str
    weight: Floats
    value: float
    parts: Floats
    rest: Floats
    overlap: float

    def minus(self, other: _View | None) -> _View:
        """The difference to another policy, or to the logged one."""
        reward = self.logged.reward
        if other is None:
            value, parts, weight = float(reward.mean()), reward, np.ones(len(reward))
        else:
            value, parts, weight = other.value, other.parts, other.weight
        return replace(self, value=self.value - value, parts=self.parts - parts, weight=self.weight - weight)

    def bounds(self, effective: float, interval: Interval, alpha: float) -> tuple[float, float]:
        spread = Spread.of(self.parts)
        if self.method != "dm":
            spread = spread.shrunk(
                self.parts, self.weight, self.rest, _effective(np.abs(self.weight * self.logged.reward))
            )
        low, high = bounds(self.value, spread, interval, alpha)
        if low == high:  # nothing varies: as many rows without an exception leave room for this many ("rule of three")
            room = -math.log(alpha / 2.0) / effective * (float(np.abs(self.logged.reward).max()) or 1.0)
            return self.value - room, self.value + room
        return low, high

    def judged(self, interval: Interval, alpha: float) -> Estimate:
        effective = _effective(self.weight)
        low, high = self.bounds(effective, interval, alpha)
        if self.method != "dm":
            low, high = _within(self.value, low, high, self.logged.reward)
        found = Estimate(
            value=self.value,
            low=low,
            high=high,
            effective_sample_size=effective,
            method=self.method,
            interval=interval,
            alpha=alpha,
            rows=len(self.logged),
            overlap=self.overlap,
            mean_weight=float(self.weight.mean()),
            largest_share=float(self.weight.max() / self.weight.sum()),
        )
        return replace(found, refusal=_refusal(self.logged, self.weight, found))


def _effective(weight: Floats) -> float:
    """How many equal weights tell as much as these (Kish 1965); squares of large ones need not be finite."""
    most = float(weight.max())
    if most <= 0.0:
        return 0.0
    scaled = weight / most
    return float(scaled.sum() ** 2 / (scaled @ scaled))


def _view(log: Any, probabilities: Any, method: str, interval: str, alpha: float) -> _View:
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    if interval not in INTERVALS:
        raise ValueError(f"interval is {interval!r}; expected one of {', '.join(INTERVALS)}")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha is {alpha!r}; expected a number between 0 and 1, such as 0.05")
    logged = Logged.of(log)
    own, every = logged.chances(probabilities)
    with np.errstate(over="ignore", invalid="ignore"):
        weight = own / logged.propensity
        if not weight.any():
            raise ValueError(
                "the new policy gives every logged arm probability 0: there is nothing to estimate from; "
                "log a policy that tries the arms the new one prefers"
            )
        value, parts, rest = _influence(logged, weight, every, method)
        largest = float(np.max(np.abs(np.concatenate([parts, weight, rest]))))
        fits = math.isfinite(value) and math.isfinite(largest * largest * largest * len(parts))
    if not fits:
        least, most = logged.propensity.min(), np.abs(logged.reward).max()
        raise ValueError(
            f"propensity down to {least:g} with rewards up to {most:g} cannot be added: check both columns"
        )
    return _View(logged, method, weight, value, parts, rest, _overlap(logged, weight, every))


def _influence(logged: Logged, weight: Floats, every: Floats | None, method: str) -> tuple[float, Floats, Floats]:
    """The estimate, each row's influence on it, and what of it is weighed."""
    reward = logged.reward
    if method == "ips":
        parts = weight * reward
        return float(parts.mean()), parts, reward
    if method == "snips":
        value = float((weight * reward).sum() / weight.sum())
        return value, weight * (reward - value) / weight.mean(), reward - value
    expected, of_logged = _predicted(logged, every, method)
    rest = reward - of_logged
    parts = expected if method == "dm" else expected + weight * rest
    return float(parts.mean()), parts, rest


def _predicted(logged: Logged, every: Floats | None, method: str) -> tuple[Floats, Floats]:
    """What a reward model expects of the new policy, and of the logged arm, in each row."""
    rows, predicted = len(logged), logged.predicted
    if every is None and method == "dm":
        raise ValueError(f"probabilities have shape ({rows},); expected ({rows}, arms) for dm: give those of all arms")
    if predicted is None:
        arms = 1 if every is None else every.shape[1]
        arm = logged.arm if every is not None else np.zeros(rows, np.int64)
        predicted = crossfitted(arm, arms, logged.reward, logged.context)
    if predicted.ndim == 1 or every is None:
        if predicted.ndim > 1 and predicted.shape[1] > 1:
            expected = f"({rows}, {predicted.shape[1]})"
            raise ValueError(
                f"probabilities have shape ({rows},); expected {expected}, a column for each predicted one"
            )
        flat = predicted.reshape(rows)
        return flat, flat
    if predicted.shape != every.shape:
        raise ValueError(f"predicted has shape {predicted.shape}; expected {every.shape}, that of the probabilities")
    return (predicted * every).sum(axis=1), predicted[np.arange(rows), logged.arm]


def _overlap(logged: Logged, weight: Floats, every: Floats | None) -> float:
    """Share of the new policy's probability on arms that the logged one could choose, as far as the log tells."""
    if every is None:
        return min(1.0, float(weight.mean()))
    if logged.propensities is not None:
        if logged.propensities.shape != every.shape:
            raise ValueError(f"propensities have shape {logged.propensities.shape}; expected {every.shape}")
        return float((every * (logged.propensities > 0.0)).sum(axis=1).mean())
    return float(every[:, np.bincount(logged.arm, minlength=every.shape[1]) > 0].sum(axis=1).mean())


def _within(value: float, low: float, high: float, reward: Floats) -> tuple[float, float]:
    """What rewards show of their range: without a negative one none is expected, of 0 and 1 alone none above 1."""
    if reward.min() >= 0.0:
        low = min(max(low, 0.0), value)
        if ((reward == 0.0) | (reward == 1.0)).all():
            high = max(min(high, 1.0), value)
    return low, high


def _refusal(logged: Logged, weight: Floats, found: Estimate) -> str:
    """Why the log cannot answer, and what would help."""
    error = float(weight.std()) / math.sqrt(len(weight))
    worth, covered = found.effective_sample_size, min(found.overlap, found.mean_weight + _SURE * error)
    rewarded = int(np.count_nonzero(logged.reward[weight > 0.0]))
    if found.largest_share > LARGEST_SHARE and found.rows >= LEAST_ROWS:
        return (
            f"a single row has {found.largest_share:.0%} of all weight (at most {LARGEST_SHARE:.0%} is allowed), and "
            f"{found.rows:,} rows are worth {worth:.0f}: the log seldom did what this policy does; log with more "
            "exploration, or judge a policy nearer to the logged one"
        )
    if worth < LEAST_ROWS:
        return (
            f"{found.rows:,} rows are worth {worth:.0f} of this policy's own (at least {LEAST_ROWS:.0f} are needed): "
            "give a longer log, or one with more exploration"
        )
    if covered < LEAST_OVERLAP:
        return (
            f"the log covers {covered:.0%} of what this policy does (at least {LEAST_OVERLAP:.0%} is needed), and "
            "nothing is known of the rest; log a policy that tries these arms too"
        )
    if found.mean_weight - _SURE * error > 1.0 / LEAST_OVERLAP:
        return (
            f"weights average {found.mean_weight:.2f} and should average 1: the log's propensities are not those its "
            "arms were chosen with; log the probability of the draw, after all rules"
        )
    if rewarded < LEAST_REWARDED:
        return (
            f"{rewarded} rows of arms this policy chooses have a reward (at least {LEAST_REWARDED} are needed): wait "
            "for more outcomes, or give a longer log"
        )
    return ""
