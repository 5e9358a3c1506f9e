"""The rules of choice by name, and what all of them have in common: the floor."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Final

from bandits import beta_bernoulli, epsilon_greedy, softmax, squarecb, thompson, uniform
from bandits.belief import Belief
from bandits.policy import Floats
from bandits.spec import PolicySpec

Rule = Callable[[Belief, PolicySpec], Floats]

RULES: Final = MappingProxyType[str, Rule](
    {
        "beta_bernoulli": beta_bernoulli.shares,
        "epsilon_greedy": epsilon_greedy.shares,
        "softmax": softmax.shares,
        "squarecb": squarecb.shares,
        "thompson": thompson.shares,
        "uniform": uniform.shares,
    }
)


def probabilities(belief: Belief, spec: PolicySpec) -> Floats:
    """What the rule says, mixed with the floor: no arm has less than `explore / arms`, nor less than 1e-12 of it all.

    Returns
    -------
    float64[batch, arms]
        Positive, adding to 1.
    """
    explore = max(spec.explore, _LEAST)
    shares = RULES[spec.algorithm](belief, spec)
    mixed: Floats = (1.0 - explore) * shares + explore / shares.shape[-1]
    return mixed


_LEAST: Final = 1e-9  # a propensity is never 0, also where `explore` is
