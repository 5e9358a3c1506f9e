"""Progressive validation: every example is predicted before it is learned from, by every member.

Log-loss, area under the ROC curve and calibration come from histograms of the predictions, in which older examples
fade. A challenger replaces the champion when an always-valid lower bound of its advantage is above zero.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from bandits.intervals import quantile
from bandits.propensity_score import LIMIT, MEMBERS, Floats, sigmoid

BINS: Final = 240
"""Of log-odds, 0.1 wide."""
GROUPS: Final = 10
"""Of equally many predictions, in which calibration is measured."""
HALF_LIFE: Final = 50_000.0
"""Examples after which one counts half in the measures."""
WORST: Final = 8.0
"""Log-loss of one example is cut here for the gate, so that the advantage is bounded."""
ALPHA: Final = 0.01
"""Chance that a member that is no better is ever promoted, over all time and all challengers."""
MIN_EXAMPLES: Final = 500


class Progress:
    """How well each member has predicted so far.

    Attributes
    ----------
    histogram : float64[members, 3, BINS]
        By log-odds: how many, how many positives, sum of the probabilities.
    loss : float64[members]
        Sum of log-loss, faded as the histogram.
    weight
        Examples, faded likewise.
    advantage : float64[members, members, 2]
        Of the first over the second: sum and sum of squares of the difference in log-loss.
    compared
        Over so many examples: since the beginning, or the last drift.
    """

    def __init__(self) -> None:
        count = len(MEMBERS)
        self.histogram = np.zeros((count, 3, BINS))
        self.loss = np.zeros(count)
        self.weight = 0.0
        self.advantage = np.zeros((count, count, 2))
        self.compared = 0.0

    def take(self, log_odds: Floats, y: Floats) -> Floats:
        """Count predictions made before their outcomes were known.

        Parameters
        ----------
        log_odds : float64[n, members]
        y : float64[n]
            0 or 1.

        Returns
        -------
        float64[n, members]
            Their log-loss.
        """
        n, count = log_odds.shape
        losses = np.logaddexp(0.0, np.where(y[:, None] > 0.0, -log_odds, log_odds))
        fade = 0.5 ** (n / HALF_LIFE)
        places = np.minimum(((log_odds + LIMIT) * (BINS / (2.0 * LIMIT))).astype(np.int64), BINS - 1)
        places += np.arange(count) * BINS
        flat, size = places.ravel(), count * BINS
        self.histogram *= fade
        for column, values in enumerate((None, np.repeat(y, count), sigmoid(log_odds).ravel())):
            self.histogram[:, column] += np.bincount(flat, values, size).reshape(count, BINS)
        self.loss = self.loss * fade + losses.sum(axis=0)
        self.weight = self.weight * fade + n
        bounded = np.minimum(losses, WORST)
        gained = bounded[:, None, :] - bounded[:, :, None]
        self.advantage[:, :, 0] += gained.sum(axis=0)
        self.advantage[:, :, 1] += np.square(gained).sum(axis=0)
        self.compared += n
        return losses

    def forget_comparisons(self) -> None:
        """Compare from now on: what was before tells nothing of what comes."""
        self.advantage[:] = 0.0
        self.compared = 0.0

    def promoted(self, champion: int) -> int:
        """The member that is to be champion from now on."""
        over = self.advantage[:, champion].tolist()
        better = [k for k, sums in enumerate(over) if k != champion and lower_bound(self.compared, *sums) > 0.0]
        return max(better, key=lambda k: over[k][0], default=champion)

    def log_loss(self, member: int) -> float:
        """Mean log-loss; NaN before anything was predicted."""
        return float(self.loss[member] / self.weight) if self.weight else math.nan

    def auc(self, member: int) -> float:
        """Area under the ROC curve, ties within a bin counted half; NaN without both outcomes."""
        total, positive, _ = self.histogram[member]
        negative = total - positive
        pairs = float(positive.sum() * negative.sum())
        below = np.cumsum(negative) - negative
        return float(positive @ (below + 0.5 * negative)) / pairs if pairs > 0.0 else math.nan

    def calibration_error(self, member: int) -> float:
        """Expected calibration error over `GROUPS` groups of about equally many predictions; NaN before any."""
        total, positive, predicted = self.histogram[member]
        weight = total.sum()
        if not weight:
            return math.nan
        group = np.minimum(((np.cumsum(total) - 0.5 * total) * (GROUPS / weight)).astype(np.int64), GROUPS - 1)
        gap = np.bincount(group, predicted, GROUPS) - np.bincount(group, positive, GROUPS)
        return float(np.abs(gap).sum() / weight)


def lower_bound(n: float, total: float, squares: float) -> float:
    """Lower end of a confidence sequence for the mean of what was summed; it holds at all times at once.

    One side of `bandits.intervals`, at level `ALPHA` shared by the challengers. Below `MIN_EXAMPLES` it is minus
    infinity.

    Examples
    --------
    >>> lower_bound(10_000, 100.0, 200.0) > 0.0 > lower_bound(10_000, 10.0, 200.0)
    True
    """
    if n < MIN_EXAMPLES:
        return -math.inf
    level = ALPHA / (len(MEMBERS) - 1)
    mean = total / n
    error = math.sqrt(max(squares / n - mean * mean, 0.0) / n)
    return mean - error * quantile(int(n), "always_valid", 2.0 * level)
