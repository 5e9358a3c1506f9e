"""Epsilon-greedy: the best known arm, and a constant share of exploration."""

from __future__ import annotations

from bandits.belief import Belief
from bandits.policy import Floats
from bandits.spec import PolicySpec


def shares(belief: Belief, spec: PolicySpec) -> Floats:
    """The arm of the largest mean, certainly; arms that are equal share.

    Sutton and Barto (2018), "Reinforcement learning", section 2.2. Its epsilon is the floor `explore`, which every
    policy has.
    """
    del spec
    return belief.leaders()
