"""What reward to expect of each arm in a context: ridge regressions that never predict a row they have seen."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandits.policy import Floats

FOLDS: Final = 5
RIDGE: Final = 1.0  # rows' worth of belief that a scaled context tells nothing
PRIOR_ROWS: Final = 10.0  # of belief that an arm is like all arms


def crossfitted(arm: NDArray[np.int64], arms: int, reward: Floats, context: Floats | None) -> Floats:
    """Expected reward of every arm in every row, each row's from the rows of other folds alone.

    Rows are dealt to the folds in turn: deterministic, and a fold spans all of the time. An arm's prediction is that of
    all arms together plus its own regression on what that leaves.

    Parameters
    ----------
    arm : int64[n]
        What was chosen.
    arms
        How many there are.
    reward : float64[n]
        What came of it.
    context : float64[n, dim] or None
        What it was chosen in.

    Returns
    -------
    float64[n, arms]

    References
    ----------
    Chernozhukov et al. (2018), "Double/debiased machine learning", definition 3.1 (cross-fitting).
    """
    rows = len(arm)
    z = _scaled(context, rows)
    folds = np.arange(rows) % min(FOLDS, rows)
    predicted = np.empty((rows, arms))
    for fold in range(min(FOLDS, rows)):
        held = folds == fold
        seen = ~held if rows > 1 else held
        common = _ridge(z[seen], reward[seen], 0.0)
        rest = reward[seen] - z[seen] @ common
        for each in range(arms):
            own = arm[seen] == each
            predicted[held, each] = z[held] @ (common + _ridge(z[seen][own], rest[own], PRIOR_ROWS))
    return predicted


def _scaled(context: Floats | None, rows: int) -> Floats:
    if context is None:
        return np.ones((rows, 1))
    spread = context.std(axis=0)
    varies = spread > 0.0
    scaled = (context - context.mean(axis=0))[:, varies] / spread[varies]
    return np.column_stack([np.ones(rows), scaled])


def _ridge(z: Floats, reward: Floats, prior_rows: float) -> Floats:
    penalty = np.full(z.shape[1], RIDGE + prior_rows)
    penalty[0] = prior_rows or 1e-9
    return np.asarray(np.linalg.solve(z.T @ z + np.diag(penalty), z.T @ reward), dtype=np.float64)
