"""A propensity model as plain arrays: what scores a person without the library that learned it.

A row of features is `x[0]` successes and `x[1]` trials of this person so far, then anything else of about unit scale.
Each member turns it into log-odds; the champion's, recalibrated, is the score:

- ``rate``: the smoothed rate ``(strength * mean + successes) / (strength + trials)``, a Beta prior fitted to all;
- ``linear``: logistic regression on the standardised features, the rate's log-odds among them;
- ``forest``: the weighted vote of decision trees;
- ``blend``: logistic regression on the log-odds of the other three and the standardised features.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MEMBERS: Final = ("rate", "linear", "forest", "blend")
RATE, LINEAR, FOREST, BLEND = range(len(MEMBERS))
SUCCESSES, TRIALS = 0, 1
MIN_WIDTH: Final = 2
MAX_WIDTH: Final = 256
MAX_DEPTH: Final = 64
LIMIT: Final = 12.0
"""Log-odds are between -12 and 12: a probability of 6e-6 is as small as examples can tell."""
SURE: Final = 4.0
"""Trees are never surer than 98 %: a leaf that has seen one outcome alone would outshout everybody."""
TINY: Final = 1e-12
FAR: Final = 8.0
"""Standardised features are cut at so many standard deviations: one odd value must not decide a score."""


def log_odds(p: Floats) -> Floats:
    """Log-odds of probabilities, cut at `LIMIT`.

    Examples
    --------
    >>> log_odds(np.array([0.5, 1.0])).tolist()
    [0.0, 12.0]
    """
    p = np.clip(p, TINY, 1.0 - TINY)
    return np.clip(np.log(p / (1.0 - p)), -LIMIT, LIMIT)


def sigmoid(z: Floats) -> Floats:
    """Probabilities of log-odds."""
    odds: Floats = 1.0 / (1.0 + np.exp(-z))
    return odds


@dataclass(frozen=True, slots=True)
class Trees:
    """Decision trees side by side: node ``i`` of all of them asks ``x[feature[i]] <= threshold[i]``.

    Parameters
    ----------
    roots : int64[trees]
        Where each tree begins.
    weights : float64[trees]
        Of each tree's vote.
    feature : int64[nodes]
        0 in leaves.
    threshold : float64[nodes]
    left, right : int64[nodes]
        Where to go on; a leaf leads to itself.
    value : float64[nodes]
        A leaf's probability.
    votes : float64[nodes]
        1 where a leaf has seen anything, else 0: it has no say.
    depth
        Of the deepest leaf.
    """

    roots: Ints
    weights: Floats
    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    value: Floats
    votes: Floats
    depth: int

    def probabilities(self, x: Floats) -> Floats:
        """Weighted vote for each row of `x`; 0.5 where no tree has a say."""
        if not len(self.roots):
            return np.full(len(x), 0.5)
        node = np.broadcast_to(self.roots, (len(x), len(self.roots)))
        rows = np.arange(len(x))[:, None]
        for _ in range(self.depth):
            below = x[rows, self.feature[node]] <= self.threshold[node]
            node = np.where(below, self.left[node], self.right[node])
        says = self.weights * self.votes[node]
        total = says.sum(axis=1)
        said = (says * self.value[node]).sum(axis=1)
        vote: Floats = np.divide(said, total, out=np.full(len(x), 0.5), where=total > 0.0)
        return vote


_NONE: Ints = np.zeros(0, np.int64)
_NOTHING: Floats = np.zeros(0)
NO_TREES: Final = Trees(_NONE, _NOTHING, _NONE, _NOTHING, _NONE, _NONE, _NOTHING, _NOTHING, 0)


@dataclass(slots=True)
class Members:
    """The arrays of all members; the learner changes them, the scorer does not.

    Parameters
    ----------
    mean, strength
        The Beta prior of the rate: its mean, and how many trials it weighs.
    centre, scale : float64[inputs]
        Of the standardisation; `inputs` is the width less one: the rate's log-odds stand for successes and trials.
    weights : float64[inputs]
        Of the linear member.
    intercept
        Likewise.
    trees
        The forest.
    blend : float64[4 + inputs]
        Intercept, then the weights of the members' log-odds and of the standardised features.
    platt : float64[members, 2]
        Intercept and slope of each member's recalibration.
    champion
        Index into `MEMBERS`.
    """

    mean: float
    strength: float
    centre: Floats
    scale: Floats
    weights: Floats
    intercept: float
    trees: Trees
    blend: Floats
    platt: Floats
    champion: int

    @property
    def width(self) -> int:
        """Features in a row."""
        return len(self.centre) + 1

    def rate(self, x: Floats) -> Floats:
        """Log-odds of the smoothed rate."""
        trials = np.maximum(x[:, TRIALS], 0.0)
        successes = np.clip(x[:, SUCCESSES], 0.0, trials)
        return log_odds((self.strength * self.mean + successes) / (self.strength + trials))

    def inputs(self, x: Floats, rate: Floats) -> Floats:
        """What the linear members see, before standardisation: the rate's log-odds, then the other features."""
        return np.concatenate([rate[:, None], x[:, MIN_WIDTH:]], axis=1)

    def standardised(self, inputs: Floats) -> Floats:
        """Inputs with mean 0 and variance 1, cut at `FAR`."""
        return np.clip((inputs - self.centre) / self.scale, -FAR, FAR)

    def linear(self, z: Floats) -> Floats:
        """Log-odds of the linear member."""
        return z @ self.weights + self.intercept

    def design(self, x: Floats) -> tuple[Floats, Floats]:
        """Inputs of the linear members as they are, and what the blend sees: 1, log-odds of the others, inputs."""
        rate = self.rate(x)
        inputs = self.inputs(x, rate)
        z = self.standardised(inputs)
        linear = np.clip(self.linear(z), -LIMIT, LIMIT)
        forest = np.clip(log_odds(self.trees.probabilities(x)), -SURE, SURE)
        return inputs, np.concatenate([np.stack([np.ones(len(x)), rate, linear, forest], axis=1), z], axis=1)

    def raw(self, design: Floats) -> Floats:
        """Log-odds of each member before recalibration, float64[n, members]."""
        blend = np.clip(design @ self.blend, -LIMIT, LIMIT)
        return np.concatenate([design[:, 1 : len(MEMBERS)], blend[:, None]], axis=1)

    def calibrated(self, raw: Floats) -> Floats:
        """Log-odds of each member."""
        return np.clip(self.platt[:, 0] + self.platt[:, 1] * raw, -LIMIT, LIMIT)

    def scores(self, x: Floats) -> Floats:
        """The champion's probability for each row of `x`, float64[n, width]."""
        _, design = self.design(x)
        return sigmoid(self.calibrated(self.raw(design))[:, self.champion])


def untrained(width: int) -> Members:
    """What is known before anything was seen: even odds, whoever it is."""
    if not MIN_WIDTH <= width <= MAX_WIDTH:
        raise ValueError(f"width is {width}; expected successes, trials and perhaps more: {MIN_WIDTH} to {MAX_WIDTH}")
    inputs = width - 1
    blend = np.zeros(len(MEMBERS) + inputs)
    blend[1 + RATE] = 1.0  # the blend begins as the rate
    platt = np.tile([0.0, 1.0], (len(MEMBERS), 1))
    return Members(0.5, 1.0, np.zeros(inputs), np.ones(inputs), np.zeros(inputs), 0.0, NO_TREES, blend, platt, RATE)


def checked(members: Members) -> str | None:
    """What makes arrays of the right shape unusable; None where nothing does."""
    trees = members.trees
    nodes = len(trees.feature)
    within = [(trees.feature, members.width), (trees.roots, nodes), (trees.left, nodes), (trees.right, nodes)]
    bad = {
        "a tree leads out of itself": any(len(i) and (i.min() < 0 or i.max() >= size) for i, size in within),
        f"trees are {trees.depth} deep": not 0 <= trees.depth <= MAX_DEPTH,
        "a tree has a negative vote": (trees.weights < 0.0).any() or (trees.votes < 0.0).any(),
        "a leaf has no probability": ((trees.value < 0.0) | (trees.value > 1.0)).any(),
        f"the rate has mean {members.mean}": not 0.0 < members.mean < 1.0,
        f"the rate has strength {members.strength}": members.strength <= 0.0,
        "a feature has no scale": (members.scale <= 0.0).any(),
        f"there is no member {members.champion}": not 0 <= members.champion < len(MEMBERS),
    }
    return next((problem for problem, found in bad.items() if found), None)


class Scorer:
    """The champion for one row at a time: the same numbers as `Members.scores`, in a few microseconds.

    Parameters
    ----------
    members
        Not changed any more.
    """

    __slots__ = ("_blend", "_inputs", "_intercept", "_nodes", "_roots", "_votes", "_weights", "members")

    def __init__(self, members: Members) -> None:
        trees = members.trees
        self.members = members
        self._inputs = list(zip(members.centre.tolist(), members.scale.tolist(), strict=True))
        self._weights: list[float] = members.weights.tolist()
        self._blend: list[float] = members.blend.tolist()
        self._roots = list(zip(trees.roots.tolist(), trees.weights.tolist(), strict=True))
        columns = (trees.feature, trees.threshold, trees.left, trees.right)
        self._nodes = list(zip(*(column.tolist() for column in columns), strict=True))
        self._votes = list(zip(trees.value.tolist(), trees.votes.tolist(), strict=True))

    def score(self, x: Sequence[float]) -> float:
        """Probability for one row of features.

        Raises
        ------
        ValueError
            If the row has another width.
        """
        members = self.members
        if len(x) != members.width:
            raise ValueError(f"x has {len(x)} features; expected {members.width}")
        intercept, slope = members.platt[members.champion].tolist()
        return 1.0 / (1.0 + math.exp(-_cut(intercept + slope * self._raw(x))))

    def _raw(self, x: Sequence[float]) -> float:
        members = self.members
        if members.champion == FOREST:
            return self._forest(x)
        trials = max(x[TRIALS], 0.0)
        successes = min(max(x[SUCCESSES], 0.0), trials)
        rate = _log_odds((members.strength * members.mean + successes) / (members.strength + trials))
        if members.champion == RATE:
            return rate
        z = [
            max(-FAR, min(FAR, (value - centre) / scale))
            for value, (centre, scale) in zip((rate, *x[MIN_WIDTH:]), self._inputs, strict=True)
        ]
        linear = _cut(_dot(z, self._weights) + members.intercept)
        if members.champion == LINEAR:
            return linear
        return _cut(_dot((1.0, rate, linear, self._forest(x), *z), self._blend))

    def _forest(self, x: Sequence[float]) -> float:
        said = total = 0.0
        for root, weight in self._roots:
            node = root
            for _ in range(self.members.trees.depth):
                feature, threshold, left, right = self._nodes[node]
                below = left if x[feature] <= threshold else right
                if below == node:
                    break
                node = below
            value, votes = self._votes[node]
            said += weight * votes * value
            total += weight * votes
        return max(-SURE, min(SURE, _log_odds(said / total if total > 0.0 else 0.5)))


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return float(sum(map(operator.mul, a, b)))


def _cut(z: float) -> float:
    return max(-LIMIT, min(LIMIT, z))


def _log_odds(p: float) -> float:
    p = min(max(p, TINY), 1.0 - TINY)
    return _cut(math.log(p / (1.0 - p)))
