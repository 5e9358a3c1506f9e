"""Short tests: what is explored must be repaid by the decisions that are left.

A world is that of e-mail: 4 subjects whose rates vary around 1.5 % by 17 %, sent in 10 batches, outcomes known when
the next batch is decided. Captured is the share of the possible lift, (mean true rate of what was sent - mean of the
arms) / (best - mean of the arms), as the ratio of means over worlds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bandits import build_policy
from bandits.best import chance_of_best
from bandits.policy import Floats

ARMS, BATCHES, WORLDS = 4, 10, 500
Rule = Callable[[Floats, Floats], Floats]  # (sent[worlds, arms], won[worlds, arms]) -> shares[worlds, arms]


def captured(rule: Rule, sends: int, batches: int = BATCHES, worlds: int = WORLDS) -> float:
    """Share of the possible lift that a rule captures; all rules meet the same rates."""
    rng = np.random.default_rng(20_261_124)
    rates = np.clip(0.015 * (1.0 + 0.17 * rng.standard_normal((worlds, ARMS))), 1e-4, 1.0)
    sent, won, earned = np.zeros_like(rates), np.zeros_like(rates), np.zeros(worlds)
    for _ in range(batches):
        now = rng.multinomial(sends // batches, rule(sent, won))
        earned += (now * rates).sum(axis=1)
        sent, won = sent + now, won + rng.binomial(now, rates)
    mean = rates.mean(axis=1)
    return float((earned / sends - mean).mean() / (rates.max(axis=1) - mean).mean())


def floored(shares: Floats) -> Floats:
    """With the same floor as ours."""
    mixed: Floats = 0.95 * shares + 0.05 / ARMS
    mixed /= mixed.sum(axis=1, keepdims=True)
    return mixed


def plain_thompson(sent: Floats, won: Floats) -> Floats:
    """Probability of being best, from Beta(1, 1), nearly: the beliefs of 200 and more examples are normal."""
    a, b = won + 1.0, sent - won + 1.0
    mean = a / (a + b)
    spread = np.sqrt(mean * (1.0 - mean) / (a + b + 1.0)) if sent.any() else np.ones_like(mean)
    return floored(chance_of_best(mean, spread))


def split_test(sends: int) -> Rule:
    """Even shares for the first quarter and what of its batch is under way, then all to the winner."""

    def rule(sent: Floats, won: Floats) -> Floats:
        if sent[0].sum() < 0.25 * sends:
            return np.full_like(sent, 1.0 / ARMS)
        rate = won / sent
        best = rate == rate.max(axis=1, keepdims=True)
        shares: Floats = best / best.sum(axis=1, keepdims=True)
        return shares

    return rule


def ours(**spec: Any) -> Rule:
    """Policies of the public interface, one for each world."""
    policies = [build_policy(spec, ARMS) for _ in range(WORLDS)]
    before = [np.zeros((WORLDS, ARMS)), np.zeros((WORLDS, ARMS))]

    def rule(sent: Floats, won: Floats) -> Floats:
        more, wins = (sent - before[0]).astype(int), (won - before[1]).astype(int)
        before[:] = [sent, won]
        arms = np.arange(ARMS)
        for policy, count, good in zip(policies, more, wins, strict=True):
            x = np.eye(ARMS)[np.concatenate([np.repeat(arms, good), np.repeat(arms, count - good)])]
            policy.learn(x, np.arange(len(x)) < good.sum())
        shares = np.stack([policy.probabilities(np.eye(ARMS)) for policy in policies])
        scaled: Floats = shares / shares.sum(axis=1, keepdims=True)
        return scaled

    return rule


@pytest.mark.parametrize("sends", [3_600, 14_400])
def test_a_short_test_captures_more_than_thompson_and_more_than_a_split_test(sends: int) -> None:
    """With the horizon known, over 500 worlds, in both readings of a test of 3,600: in all, and of each arm.

    Measured over 16,000 worlds: 0.31 against 0.22 and 0.295 for 3,600; 0.51 against 0.41 and 0.465 for 14,400. The
    standard error of a difference over 500 worlds is about 0.015, so with other seeds the split test would come out
    ahead once in 6 (3,600) and once in 500 (14,400) sets: the seed is fixed.
    """
    mine = captured(ours(algorithm="thompson", horizon=sends), sends)
    assert mine > captured(plain_thompson, sends) + 0.05
    assert mine > captured(split_test(sends), sends)


def test_without_a_horizon_it_is_no_worse_than_thompson() -> None:
    """Nobody said how many there will be: 14,400 sends, measured 0.50 against 0.41; wrong once in 10^6 sets."""
    assert captured(ours(algorithm="thompson"), 14_400) > captured(plain_thompson, 14_400)
