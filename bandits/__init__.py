"""Learning and choosing. This package knows no people, events or topics."""

from bandits.build import Policy, build_policy
from bandits.evaluate import Estimate, estimate
from bandits.policy import draw

__all__ = ["Estimate", "Policy", "build_policy", "draw", "estimate"]
