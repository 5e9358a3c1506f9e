"""Synthetic newsletter readers for propensity models: very different people, whose interest drifts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WIDTH = 8


def newsletter(
    seed: int, people: int = 500, letters: int = 50, base: float = -1.2, spread: float = 1.6, walk: float = 0.25
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Rows of features and whether the letter was opened, letter by letter, the people in another order each time.

    A person's log-odds of opening are normal (`base`, `spread`), 2.5 less for three in ten, and walk by `walk` a
    letter; each letter's topic adds a quarter of a unit or so to all of them. Beside that two things count that a rate
    cannot see: other messages of the day (-0.5 per log) and how lately the person was in the shop (+1.2).

    The features are successes and trials so far, ln(1 + trials), the same two fading by a fifth a letter, a quickly
    fading mean of opens, ln(1 + other messages), and how lately the person was in the shop.
    """
    rng = np.random.default_rng(seed)
    interest = rng.normal(base, spread, people) - 2.5 * (rng.random(people) < 0.3)
    opened, sent, faded_opened, faded_sent, lately = np.zeros((5, people))
    rows, outcomes = [], []
    for _ in range(letters):
        interest += rng.normal(0.0, walk, people)
        others, visit = np.log1p(rng.poisson(1.0, people)), rng.random(people) ** 3
        log_odds = interest - 0.5 * others + 1.2 * visit + rng.normal(0.0, 0.25)
        outcome = rng.random(people) < 1.0 / (1.0 + np.exp(-log_odds))
        features = (opened, sent, np.log1p(sent), np.log1p(faded_opened), np.log1p(faded_sent), lately, others, visit)
        order = rng.permutation(people)
        rows.append(np.stack(features, axis=1)[order])
        outcomes.append(outcome[order])
        opened, sent = opened + outcome, sent + 1.0
        faded_opened, faded_sent = 0.8 * faded_opened + outcome, 0.8 * faded_sent + 1.0
        lately = 0.6 * lately + outcome
    return np.concatenate(rows), np.concatenate(outcomes)
