"""A model of each arm over a context, arms by name, hierarchical: what is known of all is where each one starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from bandits.best import chance_of_best
from bandits.moments import Moments
from bandits.policy import Floats
from bandits.snapshot import SnapshotError
from bandits.spec import PolicySpec

MAX_WIDTH: Final = 24
MAX_ARMS: Final = 500
_MAGIC: Final = b"arms0001"
_HEAD_BYTES: Final = len(_MAGIC) + 4


class ArmModel:
    """Statistics of one policy: for each arm a Bayesian linear regression over [1, context].

    Parameters
    ----------
    width
        Numbers of context, at most 24; 0 for none.
    half_life_s
        Seconds after which an example counts half; None: never.
    """

    def __init__(self, width: int, half_life_s: float | None = None) -> None:
        if not 0 <= width <= MAX_WIDTH:
            raise ValueError(f"width is {width}; expected 0 to {MAX_WIDTH}: choose fewer numbers of context")
        self.width = width
        self._moments = Moments(width + 1, half_life_s)
        self._slots: dict[str, int] = {}

    @property
    def half_life_s(self) -> float | None:
        """Seconds after which an example counts half."""
        return self._moments.half_life_s

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms an example was seen of, in the order they came."""
        return tuple(self._slots)

    def learn(self, arm: str, x: Floats, reward: float, at_s: float, key: int) -> None:
        """Take in an example.

        Parameters
        ----------
        arm
            Which arm was chosen.
        x : float64[width]
            The context it was chosen in.
        reward
            What came of it so far.
        at_s
            When, seconds since the epoch.
        key
            A hash of the example's identity; the same for its corrections.

        Raises
        ------
        ValueError
            If a number is not finite or `x` has another width; nothing has changed then.
        """
        self._add(arm, x, reward, at_s, key, 1.0)

    def correct(self, arm: str, x: Floats, delta: float, at_s: float, key: int) -> None:
        """Add `delta` to the reward of an example; all else is as it was given to `learn`."""
        self._add(arm, x, delta, at_s, key, 0.0)

    def forget(self, arm: str, x: Floats, reward: float, at_s: float, key: int) -> None:
        """Take an example back, with the reward it has by now."""
        self._add(arm, x, -reward, at_s, key, -1.0)

    def ready(self, spec: PolicySpec) -> ReadyPolicy:
        """The policy that follows from what has been learned."""
        moments, ridge = self._moments, np.eye(self.width + 1)
        age = moments.age()
        gram, moment = moments.gram * age, moments.moment * age
        total = max(float(gram[:, 0, 0].sum()), 1.0) if len(gram) else 1.0
        noise = max(float(moments.bucket_r @ moments.bucket_r) * age / total, 1e-30)
        pooled = np.linalg.solve(gram.sum(axis=0) + ridge, moment.sum(axis=0))
        prior = ridge * 0.1
        spread = np.linalg.inv(gram + ridge / 0.1) if len(gram) else gram
        mean = pooled + (spread @ (moment - gram @ pooled)[:, :, None])[:, :, 0]
        arms = {name: Effect(mean[slot], noise * spread[slot]) for name, slot in self._slots.items()}
        return ReadyPolicy(spec, arms, Effect(pooled, noise * prior))

    def to_bytes(self) -> bytes:
        """All of it as bytes; equal models give equal bytes."""
        names = msgspec.json.encode(list(self._slots))
        return _MAGIC + len(names).to_bytes(4, "little") + names + self._moments.to_bytes()

    @staticmethod
    def from_bytes(data: bytes) -> ArmModel:
        """Read a model back.

        Raises
        ------
        SnapshotError
            If these bytes are not what `to_bytes` gives.
        """
        if not data.startswith(_MAGIC) or len(data) < _HEAD_BYTES:
            raise SnapshotError("model of arms does not begin as it should: written by another version, or damaged")
        end = _HEAD_BYTES + int.from_bytes(data[len(_MAGIC) : _HEAD_BYTES], "little")
        try:
            names = msgspec.json.decode(data[_HEAD_BYTES:end], type=list[str])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SnapshotError(f"names of arms cannot be read: {error}") from error
        moments = Moments.from_bytes(data[end:])
        if (
            len(set(names)) != len(names)
            or len(names) != len(moments.moment)
            or not 1 <= moments.width <= MAX_WIDTH + 1
        ):
            raise SnapshotError(f"{len(names)} names of arms for statistics of {len(moments.moment)}")
        made = ArmModel(moments.width - 1, moments.half_life_s)
        made._moments = moments
        made._slots = {name: slot for slot, name in enumerate(names)}
        return made

    def _add(self, arm: str, x: Floats, reward: float, at_s: float, key: int, count: float) -> None:
        z = np.empty(self.width + 1)
        z[0] = 1.0
        if np.shape(x) != (self.width,):
            raise ValueError(f"x has shape {np.shape(x)}; expected ({self.width},): one number for each of the context")
        z[1:] = x
        if not math.isfinite(reward) or not math.isfinite(at_s) or not np.isfinite(z).all():
            raise ValueError(
                f"reward {reward}, at_s {at_s} or x is not finite; expected finite numbers: drop the example"
            )
        slot = self._slots.get(arm)
        if slot is None:
            if len(self._slots) >= MAX_ARMS:
                raise ValueError(f"arm {arm!r} is one too many; expected at most {MAX_ARMS} arms a policy")
            slot = self._slots[arm] = self._moments.grow()
        self._moments.add(slot, z, reward, at_s, key, count)


@dataclass(frozen=True, slots=True)
class Effect:
    """What is believed of an arm's coefficients over [1, context]: normal with this mean and covariance."""

    mean: Floats
    covariance: Floats


@dataclass(frozen=True, slots=True)
class ReadyPolicy:
    """A policy as of one moment, ready to answer; it never changes.

    Attributes
    ----------
    spec
        The algorithm and its parameters.
    effects
        Belief of each arm by name.
    newcomer
        Belief of an arm that was never tried.
    """

    spec: PolicySpec
    effects: dict[str, Effect]
    newcomer: Effect

    def probabilities(self, arms: Sequence[str], x: Floats) -> Floats:
        """Probability of each arm.

        Parameters
        ----------
        arms
            The eligible arms, at least one.
        x : float64[width]
            The context.

        Returns
        -------
        float64[arms]
            Adding to 1, each at least `explore / arms`, independent of the order of the arms.
        """
        count = len(arms)
        if count == 0:
            raise ValueError("arms is empty; expected at least one eligible arm: ask only where there is a choice")
        if self.spec.algorithm == "uniform" or count == 1:
            return np.full(count, 1.0 / count)
        z = np.concatenate([[1.0], np.asarray(x, dtype=np.float64)])
        if z.shape != self.newcomer.mean.shape or not np.isfinite(z).all():
            raise ValueError(f"x is {x!r}; expected {len(self.newcomer.mean) - 1} finite numbers")
        effects = [self.effects.get(arm, self.newcomer) for arm in arms]
        mean = np.array([float((effect.mean * z).sum()) for effect in effects])
        spread = np.sqrt([max(float(((effect.covariance @ z) * z).sum()), 1e-300) for effect in effects])
        order = np.lexsort((spread, mean))
        best = np.empty(count)
        best[order] = chance_of_best(mean[order], spread[order])
        explore = self.spec.explore
        shares: Floats = (1.0 - explore) * best + explore / count
        return shares
