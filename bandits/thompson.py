"""Thompson sampling, by probabilities instead of samples."""

from __future__ import annotations

from bandits.belief import Belief
from bandits.policy import Floats
from bandits.spec import PolicySpec


def shares(belief: Belief, spec: PolicySpec) -> Floats:
    """Each arm with the probability that it is the best one.

    Thompson (1933), "On the likelihood that one unknown probability exceeds another"; for linear models Agrawal and
    Goyal (2013), "Thompson sampling for contextual bandits with linear payoffs", algorithm 1: theta ~ N(mean, v^2
    B^-1), arm = argmax x' theta. Here P(arm = argmax) itself is computed, so that it can be logged. Where the number
    of decisions is bounded, v shrinks with what is left of them (`Belief.patience`).
    """
    del spec
    return belief.chance(belief.patience())
