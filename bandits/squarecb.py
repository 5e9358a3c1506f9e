"""SquareCB: exploration by inverse gap weighting."""

from __future__ import annotations

import numpy as np

from bandits.belief import Belief, total
from bandits.policy import Floats
from bandits.spec import PolicySpec


def shares(belief: Belief, spec: PolicySpec) -> Floats:
    """The more an arm is behind the best, the less probable it is.

    Foster and Rakhlin (2020), "Beyond UCB: optimal and efficient contextual bandits with regression oracles",
    algorithm 1: p(a) = 1 / (A + gamma (y_best - y_a)) for all but the best arm, which has the rest. The gap is in
    standard deviations of a reward; gamma = `spec.gamma` sqrt(A n), the rate of their theorem 1, n being what the arms'
    examples are worth together. Where the number of decisions is bounded, gamma is divided by the square of what is
    left of them.
    """
    arms = belief.mean.shape[-1]
    gap = belief.mean.max(axis=-1, keepdims=True) - belief.mean
    unit = belief.noise if belief.noise > 0.0 else 1.0
    gamma = spec.gamma * np.sqrt(arms * total(belief.tried)) / np.maximum(belief.patience(), 1e-6)
    lead = belief.leaders()
    part = np.where(lead > 0.0, 0.0, 1.0 / (arms + gamma * gap / unit))
    probabilities: Floats = part + (1.0 - total(part)) * lead
    return probabilities
