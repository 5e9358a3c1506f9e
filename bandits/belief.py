"""What is believed of the eligible arms at one decision: all that a rule of choice is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from bandits.policy import Floats

_AT_MOST: Final = 0.5  # of the posterior's spread, where all decisions are still to come (docs/decisions/007)
_USUAL: Final = 0.4  # of it, where nobody knows how many there will be
_RARE: Final = 0.1  # of its share of the examples: an arm with less is new, or was given up early
_ROUNDING: Final = 1e-9


def total(values: Floats) -> Floats:
    """Sum over the arms (the last axis, kept), the same to the bit for any order of them."""
    added: Floats = np.sort(values, axis=-1).sum(axis=-1, keepdims=True)
    return added


@dataclass(frozen=True, slots=True)
class Outlook:
    """Decisions still to come: what is left of a configured horizon, or a month at the volume of recent days."""

    decisions: float
    is_known: bool


@dataclass(frozen=True, slots=True)
class Belief:
    """Mean rewards of the arms of a batch of decisions with as many arms each.

    Attributes
    ----------
    mean, spread : float64[batch, arms]
        Of the posterior of each arm's mean reward.
    tried : float64[batch, arms]
        Examples that what is known of each arm is worth.
    noise
        Standard deviation of a single reward.
    outlook
        Decisions still to come.
    chance
        factor[batch, arms] -> P(best)[batch, arms] with each posterior narrowed by its factor; 1 is what is believed.
    """

    mean: Floats
    spread: Floats
    tried: Floats
    noise: float
    outlook: Outlook
    chance: Callable[[Floats], Floats]

    def patience(self) -> Floats:
        """By how much to narrow each posterior, so that no more is explored than the decisions to come can repay.

        An arm that was tried n_a times of A arms, with R decisions to come, has 0.5 (R / (R + A n_a))^2: near the end
        nothing but the best known arm is worth sending, while an arm that came late is tried as one of the first was.
        Where the end is not known, R only bounds: it is 0.4, more for an arm with less than a tenth of its share.
        """
        tried = self.mean.shape[-1] * self.tried
        ahead = self.outlook.decisions + 1.0
        left = ahead / (ahead + tried)
        factor: Floats = _AT_MOST * left * left
        if self.outlook.is_known:
            return factor
        share = total(self.tried) * _RARE
        bounded: Floats = np.minimum(factor, _USUAL * np.maximum(1.0, share / np.maximum(tried, 1e-9)))
        return bounded

    def leaders(self) -> Floats:
        """The arms of the largest mean share the probability; what is rounding, beside the spread, is no lead."""
        most = self.mean.max(axis=-1, keepdims=True)
        top = self.mean >= most - _ROUNDING * self.spread.max(axis=-1, keepdims=True)
        shares: Floats = top / top.sum(axis=-1, keepdims=True)
        return shares
