"""Propensity models: how likely a person is to do something, learned online from mature labels.

Four members learn side by side (`bandits.propensity_score` says what they are) and are validated progressively. The
champion's score is used, the others run in shadow. It begins as the smoothed rate, which is hard to beat.

References
----------
.. [1] A. P. Dawid (1984). Statistical theory: the prequential approach.
.. [2] J. Duchi, E. Hazan, Y. Singer (2011). Adaptive subgradient methods for online learning.
.. [3] J. Platt (1999). Probabilistic outputs for support vector machines.
.. [4] D. Wolpert (1992). Stacked generalization.
.. [5] H. M. Gomes et al. (2017). Adaptive random forests for evolving data stream classification.
.. [6] A. Bifet, R. Gavaldà (2007). Learning from time-changing data with adaptive windowing.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandits.propensity_forest import Forest
from bandits.propensity_progress import HALF_LIFE, Progress
from bandits.propensity_score import LINEAR, MEMBERS, MIN_WIDTH, Floats, Members, sigmoid, untrained

MIN_BATCH, MAX_BATCH = 8, 64
STRENGTHS: Final = np.geomspace(0.25, 1_024.0, 13)
"""Strengths of the rate's prior that are tried side by side: the one that has predicted best is used [1]_."""
LEARNING_RATE: Final = 0.1
INTERCEPT_RATE: Final = 0.05
EPSILON: Final = 1e-8
RECALIBRATED: Final = 4_000.0
"""Examples after which one counts half in recalibration: what a member's log-odds mean changes while it learns."""
MAX_STEP: Final = 1.0
"""No step of a second-order learner changes a prediction of its batch by more than so much log-odds."""
DRIFT_DELTA: Final = 0.002
MAX_LOSSES: Final = 8_192
"""Examples after which the drift detector begins anew, so that what it has seen can be stored."""
LEVELS: Final = 255
LARGEST_LOSS: Final = 4.0
"""The detector is fed log-losses between 0 and 1, 1 being 4 and more, in so many levels."""
DRIFT_FORGETS: Final = 0.1
"""Share of what the second-order learners know that survives a drift alarm."""


class OnlineLogit:
    """Logistic regressions by one Newton step a batch, with a Gaussian prior that does not fade.

    Parameters
    ----------
    theta : float64[models, k]
        Where they begin; changed in place.
    precision : float64[k]
        Of the prior.
    """

    def __init__(self, theta: Floats, precision: Floats) -> None:
        models, k = theta.shape
        self.theta = theta
        self.information = np.zeros((models, k, k))
        self._prior = np.diag(precision)

    def learn(self, design: Floats, y: Floats, keep: float) -> None:
        """One step for each model.

        Parameters
        ----------
        design : float64[models, n, k]
        y : float64[n]
        keep
            Share of the information so far that is kept.
        """
        p = sigmoid((design @ self.theta[:, :, None])[:, :, 0])
        weighted = design * (p * (1.0 - p))[:, :, None]
        self.information = self.information * keep + np.swapaxes(weighted, 1, 2) @ design
        gradient = np.swapaxes(design, 1, 2) @ (p - y)[:, :, None]
        step = np.linalg.solve(self.information + self._prior, gradient)
        longest = np.abs(design @ step).max(axis=(1, 2))
        self.theta -= step[:, :, 0] / np.maximum(longest / MAX_STEP, 1.0)[:, None]

    def forget(self, keep: float) -> None:
        """Trust what is known so much less."""
        self.information *= keep


class PropensityModel:
    """Learns one label from rows of features; equal examples in equal order give equal bytes, however they are cut.

    Parameters
    ----------
    width
        Features in a row: `x[0]` successes and `x[1]` trials so far, then others of about unit scale.

    Attributes
    ----------
    members
        What scores.
    progress
        How well.
    examples
        How many were learned.
    drifts
        Alarms so far: the champion's loss rose.
    """

    def __init__(self, width: int) -> None:
        self.members = untrained(width)
        self.progress = Progress()
        self.forest = Forest(width)
        self.examples = 0
        self.drifts = 0
        self.waiting_x: list[Floats] = []
        self.waiting_y: list[bool] = []
        self.outcomes = np.array([1.0, 2.0])  # faded sums: positives and examples, after one of each
        self.strength_loss = np.zeros(len(STRENGTHS))
        inputs = width - 1
        self.moments = np.zeros((2, inputs))  # mean and sum of squared deviations of the inputs
        self.squares = np.zeros(inputs)  # of the linear member's gradients
        self.losses: list[int] = []  # of the champion, in levels, since the drift detector began
        precision = np.concatenate([[1.0], np.full(len(MEMBERS) - 1, 4.0), np.full(inputs, 16.0)])
        self.blend = OnlineLogit(self.members.blend[None], precision)
        self.platt = OnlineLogit(self.members.platt, np.array([16.0, 64.0]))
        self._detector: Any = None

    def adopt(self, members: Members) -> None:
        """Go on from these members, of the same width; what they were learned from is set beside it."""
        self.members = members
        self.blend.theta, self.platt.theta = members.blend[None], members.platt  # views: one is the other

    def learn(self, x: Floats, y: NDArray[np.bool_]) -> None:
        """Take examples with mature labels, in order; they are learned in batches whose size grows with experience.

        Parameters
        ----------
        x : float64[n, width]
            Finite.
        y : bool[n]

        Raises
        ------
        ValueError
            If the width is another one.
        """
        if x.ndim != 2 or x.shape[1] != self.members.width or len(x) != len(y):  # noqa: PLR2004  # a matrix
            raise ValueError(f"x has shape {x.shape} for {len(y)} labels; expected (n, {self.members.width})")
        self.waiting_x += list(x)
        self.waiting_y += y.tolist()
        while len(self.waiting_x) >= (size := min(max(self.examples // 8, MIN_BATCH), MAX_BATCH)):
            self._learn(np.stack(self.waiting_x[:size]), np.array(self.waiting_y[:size]))
            del self.waiting_x[:size], self.waiting_y[:size]

    def _learn(self, x: Floats, outcomes: NDArray[np.bool_]) -> None:
        members, y = self.members, outcomes.astype(np.float64)
        keep = 0.5 ** (len(y) / HALF_LIFE)
        inputs, design = members.design(x)
        raw = members.raw(design)
        losses = self.progress.take(members.calibrated(raw), y)
        if self._has_drifted(losses[:, members.champion]):
            self.drifts += 1
            self.progress.forget_comparisons()
            self.blend.forget(DRIFT_FORGETS)
            self.platt.forget(DRIFT_FORGETS)
        self._learn_rate(x, y, keep)
        self._learn_linear(design[:, len(MEMBERS) :], design[:, 1 + LINEAR], y)
        self._learn_scale(inputs)
        self.blend.learn(design[None], y, keep)
        columns = raw.T[:, :, None]
        self.platt.learn(np.concatenate([np.ones_like(columns), columns], axis=2), y, 0.5 ** (len(y) / RECALIBRATED))
        self.forest.learn(x, outcomes)
        members.trees = self.forest.trees
        members.champion = self.progress.promoted(members.champion)
        self.examples += len(y)

    def _learn_rate(self, x: Floats, y: Floats, keep: float) -> None:
        """Empirical Bayes: the mean of all, and the strength under which the past was most likely."""
        members = self.members
        trials = np.maximum(x[:, 1], 0.0)
        successes = np.clip(x[:, 0], 0.0, trials)
        p = (STRENGTHS[:, None] * members.mean + successes) / (STRENGTHS[:, None] + trials)
        self.strength_loss = keep * self.strength_loss - np.log(np.where(y > 0.0, p, 1.0 - p)).sum(axis=1)
        self.outcomes = self.outcomes * keep + [y.sum(), len(y)]
        members.mean = float(self.outcomes[0] / self.outcomes[1])
        members.strength = float(STRENGTHS[np.argmin(self.strength_loss)])

    def _learn_linear(self, z: Floats, linear: Floats, y: Floats) -> None:
        """AdaGrad on the batch's mean gradient [2]_: River's `LogisticRegression` with its `AdaGrad`, in numpy."""
        error = sigmoid(linear) - y
        gradient = error @ z / len(y)
        self.squares += np.square(gradient)
        self.members.weights -= LEARNING_RATE * gradient / np.sqrt(self.squares + EPSILON)
        self.members.intercept -= INTERCEPT_RATE * float(error.mean())

    def _learn_scale(self, inputs: Floats) -> None:
        """Mean and variance of the inputs, batch by batch (Chan, Golub, LeVeque 1983)."""
        seen, n = self.examples, len(inputs)
        mean, deviations = self.moments
        new = inputs.mean(axis=0)
        shift = new - mean
        deviations += np.square(inputs - new).sum(axis=0) + np.square(shift) * (seen * n / (seen + n))
        mean += shift * (n / (seen + n))
        variance = deviations / (seen + n)
        self.members.centre = mean.copy()
        self.members.scale = np.where(variance > 0.0, np.sqrt(variance), 1.0)

    def _has_drifted(self, losses: Floats) -> bool:
        """Whether the champion's loss has risen for good, by ADWIN [6]_."""
        if self._detector is None:
            self._detector = _detector(self.losses)
        rose = False
        for level in np.rint(np.minimum(losses / LARGEST_LOSS, 1.0) * LEVELS).astype(np.int64).tolist():
            if len(self.losses) == MAX_LOSSES:
                self.losses, self._detector = [], _detector([])
            before = self._detector.estimation
            self._detector.update(level / LEVELS)
            self.losses.append(level)
            if self._detector.drift_detected:
                rose = rose or self._detector.estimation > before
                self.losses, self._detector = [], _detector([])
        return rose


def prepare() -> None:
    """Import River, which otherwise happens when something is learned first."""
    _detector([])
    Forest(MIN_WIDTH).prepare()


def _detector(losses: list[int]) -> Any:
    from river.drift import ADWIN  # noqa: PLC0415  # takes seconds and 100 MB: only where something is learned

    make: Any = ADWIN  # River's own types are incomplete
    detector = make(delta=DRIFT_DELTA)
    for level in losses:
        detector.update(level / LEVELS)
    return detector
