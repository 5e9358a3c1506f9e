"""Policies over rows of features: a model of the reward, and a rule that chooses by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from bandits.linear import LinearModel, ReadyLinear
from bandits.moments import LARGEST
from bandits.policy import Floats
from bandits.snapshot import SnapshotError, seal, unseal
from bandits.spec import PolicySpec
from bandits.tally import ReadyTally, TallyModel

MAX_POLICY_BYTES: Final = 16_000_000
_MODELS: Final = {"beta_bernoulli": TallyModel}  # every other algorithm reads features


class _Stored(msgspec.Struct, frozen=True, array_like=True, tag="policy1"):
    spec: dict[str, Any]
    model: bytes


def build_policy(spec: Mapping[str, Any], dim: int) -> Policy:
    """A policy that has learned nothing yet.

    Parameters
    ----------
    spec
        `algorithm`: thompson, squarecb, epsilon_greedy, softmax, uniform or beta_bernoulli; and what `PolicySpec` has,
        of which `explore`, `half_life` (seconds or "7d") and `horizon` (expected number of decisions) are for all.
    dim
        Features of a row, 1 to 500.

    Raises
    ------
    ValueError
        Naming the parameter, its value, what was expected and the remedy.

    Examples
    --------
    >>> policy = build_policy({"algorithm": "thompson", "explore": 0.1}, dim=2)
    >>> policy.learn(np.eye(2).repeat(50, axis=0), np.repeat([0.0, 1.0], 50))
    >>> policy.probabilities(np.eye(2)).round(2).tolist()
    [0.05, 0.95]
    """
    checked = PolicySpec.of(spec)
    return Policy(checked, _MODELS.get(checked.algorithm, LinearModel)(dim, checked.half_life_s))


class Policy:
    """Turns the features of the eligible arms into the probability of each, and learns from what came of it.

    A policy never draws: the caller does, by `draw`, so the logged propensity is exact by construction. Made by
    `build_policy` or `from_bytes`.
    """

    def __init__(self, spec: PolicySpec, model: LinearModel | TallyModel) -> None:
        self.spec = spec
        self._model = model
        self._ready: ReadyLinear | ReadyTally | None = None

    @property
    def dim(self) -> int:
        """Features of a row."""
        return self._model.dim

    def probabilities(self, x: ArrayLike) -> Floats:
        """Probability of each arm.

        Parameters
        ----------
        x : float64[arms, dim]
            One row for each eligible arm.

        Returns
        -------
        float64[arms]
            Positive, adding to 1, each at least `explore / arms`; the same for any order of the arms, and alike for
            arms that are alike.

        Raises
        ------
        ValueError
            If `x` has no rows, another width, or a number that is not finite.
        """
        return self._now().probabilities(_numbers("x", x, (None, self.dim)))

    def probabilities_of(self, x: ArrayLike) -> Floats:
        """`probabilities` for many decisions with as many arms each: float64[batch, arms, dim] -> [batch, arms]."""
        return self._now().probabilities(_numbers("x", x, (None, None, self.dim)))

    def learn(
        self, x: ArrayLike, reward: ArrayLike, weight: ArrayLike | None = None, at_s: ArrayLike | None = None
    ) -> None:
        """Take in examples.

        Parameters
        ----------
        x : float64[n, dim]
            Rows of the arms that were chosen.
        reward : float64[n]
            What came of it so far.
        weight : float64[n], optional
            How often each counts; 1. Of weight 2 it is learned twice, of 0 not at all.
        at_s : float64[n], optional
            Seconds since the epoch, in any order; without, the latest time there was.

        Raises
        ------
        ValueError
            If shapes do not fit, a number is not finite or a weight is negative; nothing has changed then.
        """
        rows = _numbers("x", x, (None, self.dim))
        weights = np.ones(len(rows)) if weight is None else _numbers("weight", weight, (len(rows),))
        if (weights < 0.0).any():
            raise ValueError(f"weight has {weights.min()}; expected at least 0: correct it, or drop the example")
        self._add(rows, _numbers("reward", reward, (len(rows),)), weights, at_s, 1.0)

    def correct(self, x: ArrayLike, delta: ArrayLike, at_s: ArrayLike | None = None) -> None:
        """Add late outcomes to examples already learned: in any order the result is that of the final rewards.

        Where rows repeat and no times tell examples apart, outcomes other than successes of 1 are an exception: how
        noisy they are is judged by what came in, and portions of one may look less noisy than the whole.

        Parameters
        ----------
        x : float64[n, dim]
            Rows as they were learned.
        delta : float64[n]
            What to add to their rewards.
        at_s : float64[n], optional
            Times of the examples, as they were learned (an outcome weighs as its example does).

        Raises
        ------
        ValueError
            If shapes do not fit or a number is not finite; nothing has changed then.
        """
        rows = _numbers("x", x, (None, self.dim))
        self._add(rows, _numbers("delta", delta, (len(rows),)), np.ones(len(rows)), at_s, 0.0)

    def to_bytes(self) -> bytes:
        """All of it as data, at most 16 MB; equal policies give equal bytes."""
        return seal(msgspec.msgpack.encode(_Stored(asdict(self.spec), self._model.to_bytes())))

    @staticmethod
    def from_bytes(data: bytes) -> Policy:
        """Read a policy back; its probabilities are the same to the bit.

        Raises
        ------
        SnapshotError
            A ValueError, if these bytes are not what `to_bytes` gives.
        """
        if len(data) > MAX_POLICY_BYTES:
            raise SnapshotError(f"policy has {len(data)} bytes; expected at most {MAX_POLICY_BYTES}")
        try:
            stored = msgspec.msgpack.decode(unseal(data), type=_Stored)
            spec = PolicySpec.of(stored.spec)
        except (ValueError, TypeError, RecursionError) as error:
            raise SnapshotError(f"policy cannot be read: {error}") from error
        model = _MODELS.get(spec.algorithm, LinearModel).from_bytes(stored.model)
        if model.half_life_s != spec.half_life_s:
            raise SnapshotError(f"policy has half-life {spec.half_life_s}, its statistics {model.half_life_s}")
        return Policy(spec, model)

    def _now(self) -> ReadyLinear | ReadyTally:
        if self._ready is None:
            self._ready = self._model.ready(self.spec)
        return self._ready

    def _add(self, rows: Floats, reward: Floats, weight: Floats, at_s: ArrayLike | None, count: float) -> None:
        times = None if at_s is None else _numbers("at_s", at_s, (len(rows),))
        told = weight > 0.0
        if told.any():
            times = None if times is None else times[told]
            self._model.add_rows(rows[told], reward[told], weight[told], times, count)
            self._ready = None


def _numbers(name: str, given: Any, shape: tuple[int | None, ...]) -> Floats:
    """As float64 of this shape (None: any length), finite."""
    try:
        numbers = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {type(given).__name__}; expected an array of numbers: {error}") from error
    fits = numbers.ndim == len(shape) and all(
        want in {None, have} for want, have in zip(shape, numbers.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} has shape {numbers.shape}; expected ({wanted}): give one row for each, of that width")
    if not (np.abs(numbers) <= LARGEST).all():
        raise ValueError(f"{name} has a number that is not finite or beyond {LARGEST}: correct it, or drop its row")
    return numbers
