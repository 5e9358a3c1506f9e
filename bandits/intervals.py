"""Confidence intervals for a mean: at one sample size, and always valid, whenever one looks and stops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

import numpy as np

from bandits.policy import Floats

Interval = Literal["fixed", "always_valid"]
INTERVALS: Final = ("fixed", "always_valid")
TUNED_ROWS: Final = 1000.0  # at which an always-valid interval is tightest, compared to that of a fixed size
PRIOR_REWARDS: Final = 10.0
_LEAST_SKEW: Final = 1e-9
_MOST_SKEW: Final = 1.0  # beyond it the correction is no longer one; such a log answers nothing anyway


@dataclass(frozen=True, slots=True)
class Spread:
    """How what is averaged varies: its central moments, and how many independent rows there are.

    Attributes
    ----------
    rows
        How many values.
    second, third
        Mean square and mean cube of their distance from the mean.
    """

    rows: int
    second: float
    third: float

    @staticmethod
    def of(parts: Floats) -> Spread:
        """That of values float64[n]."""
        away = parts - parts.mean()
        return Spread(
            len(parts), float(np.mean(away**2)) * len(parts) / max(1, len(parts) - 1), float(np.mean(away**3))
        )

    def shrunk(self, parts: Floats, weight: Floats, rest: Floats, seen: float) -> Spread:
        """The same, leaning on what all rows show while few of those that count do.

        Where rewards are rare, the rows of large weight have none at first, and then seem not to vary. Were rewards as
        on any row whatever its weight, the moments would be products; these stand in for `PRIOR_REWARDS` rewarded rows.

        Parameters
        ----------
        parts : float64[n]
            What was averaged: the products, and what does not hang on the weights.
        weight, rest : float64[n]
            Whose products these are.
        seen
            How many rewarded rows there are, in effect.
        """
        apart = Spread.of(parts - weight * rest)
        second = apart.second + float(np.mean(weight**2) * np.mean(rest**2))
        third = apart.third + float(np.mean(weight**3) * np.mean(rest**3))
        share = PRIOR_REWARDS / (PRIOR_REWARDS + seen)
        return Spread(
            self.rows, self.second + share * (second - self.second), self.third + share * (third - self.third)
        )


def bounds(mean: float, spread: Spread, interval: Interval, alpha: float) -> tuple[float, float]:
    """The interval around a mean.

    Rare rewards under large weights are skewed, and symmetric intervals then miss on one side: both kinds are corrected
    by Hall's transformation, with a time-uniform quantile in the place of the normal one where it is always valid.

    Parameters
    ----------
    mean
        The estimate.
    spread
        Of what it is the mean of: for a ratio, of its influence values.
    interval
        Its kind.
    alpha
        How often it may miss, for `always_valid` at any of all looks.

    Returns
    -------
    tuple
        Lower and upper bound; equal to the mean where nothing varies.

    References
    ----------
    Hall (1992), "On the removal of skewness by transformation", JRSS B 54, equation 2.3; Waudby-Smith, Arbour, Sinha,
    Kennedy and Ramdas (2024), "Time-uniform central limit theory and asymptotic confidence sequences", theorem 2.2.

    Examples
    --------
    >>> low, high = bounds(0.5, Spread.of(np.array([0.0, 1.0] * 200)), "fixed", 0.05)
    >>> round(low, 3), round(high, 3)
    (0.451, 0.549)
    """
    if spread.second <= 0.0:
        return mean, mean
    error = math.sqrt(spread.second / spread.rows)
    skew = spread.third / spread.second**1.5 / math.sqrt(spread.rows)
    skew = min(max(skew, -_MOST_SKEW), _MOST_SKEW)
    z = quantile(spread.rows, interval, alpha)
    return mean - error * _unskewed(z, skew), mean - error * _unskewed(-z, skew)


def quantile(rows: int, interval: Interval, alpha: float) -> float:
    """How many standard errors the interval reaches, before any correction of skewness.

    Examples
    --------
    >>> round(quantile(1000, "fixed", 0.05), 2), round(quantile(1000, "always_valid", 0.05), 2)
    (1.96, 3.04)
    """
    if interval == "fixed":
        return NormalDist().inv_cdf(1.0 - alpha / 2.0)
    twice = -2.0 * math.log(alpha)
    seen = rows * (twice + math.log(twice) + 1.0) / TUNED_ROWS
    return math.sqrt(2.0 * (seen + 1.0) / seen * math.log(math.sqrt(seen + 1.0) / alpha))


def _unskewed(z: float, skew: float) -> float:
    """Inverse of Hall's g(t) = t + s t**2 / 3 + s**2 t**3 / 27 + s / 6, s being skewness / sqrt(n)."""
    if abs(skew) < _LEAST_SKEW:
        return z
    return 3.0 / skew * (math.cbrt(1.0 + skew * (z - skew / 6.0)) - 1.0)
