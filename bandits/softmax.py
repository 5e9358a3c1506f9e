"""Boltzmann exploration."""

from __future__ import annotations

import numpy as np

from bandits.belief import Belief, total
from bandits.policy import Floats
from bandits.spec import PolicySpec


def shares(belief: Belief, spec: PolicySpec) -> Floats:
    """Each arm in proportion to exp(mean / heat).

    Sutton and Barto (2018), "Reinforcement learning", equation 2.11, with the heat of Cesa-Bianchi et al. (2017),
    "Boltzmann exploration done right": a constant one explores for ever or never, so it follows what is not known, as
    `spec.temperature` times the mean standard deviation of the arms' means, and falls as 1 / sqrt(n).
    """
    heat = spec.temperature * total(belief.spread * belief.patience()) / belief.mean.shape[-1]
    behind = belief.mean - belief.mean.max(axis=-1, keepdims=True)
    scaled = np.divide(behind, heat, out=np.where(behind < 0.0, -np.inf, 0.0), where=heat > 0.0)
    weight = np.exp(scaled)
    probabilities: Floats = weight / total(weight)
    return probabilities
