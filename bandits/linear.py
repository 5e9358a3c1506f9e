"""One linear model over rows of features, shared by all arms: the policies of `build_policy`."""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Final

import numpy as np

from bandits.moments import Moments
from bandits.policy import Floats
from bandits.snapshot import SnapshotError
from bandits.spec import PolicySpec

_SAMPLES: Final = 256


class LinearPolicy:
    """A Bayesian linear regression of the reward on a row of features, and an algorithm that chooses by it.

    Parameters
    ----------
    spec
        Algorithm and parameters.
    dim
        Features of a row.
    """

    def __init__(self, spec: PolicySpec, dim: int) -> None:
        self.spec = spec
        self.dim = dim
        self._moments = Moments(dim, spec.half_life_s)
        self._moments.grow()
        self._samples: Floats | None = None

    def probabilities(self, x: Floats) -> Floats:
        """Probability of each of the rows of `x`: positive, adding to 1."""
        x = self._rows(x)
        count = len(x)
        if count == 0:
            raise ValueError("x has no rows; expected at least one eligible arm: ask only where there is a choice")
        if self.spec.algorithm == "uniform" or count == 1:
            return np.full(count, 1.0 / count)
        order = np.lexsort(x.T)
        values = x[order] @ self._thetas()
        best = (values == values.max(axis=0)).astype(np.float64)
        shares = np.empty(count)
        shares[order] = (best / best.sum(axis=0)).mean(axis=1)
        mixed: Floats = (1.0 - self.spec.explore) * shares + self.spec.explore / count
        return mixed

    def learn(self, x: Floats, reward: Floats, weight: Floats | None = None, at_s: Floats | None = None) -> None:
        """Take in examples."""
        self._add(x, reward, weight, at_s, 1.0)

    def correct(self, x: Floats, delta: Floats, at_s: Floats | None = None) -> None:
        """Add late outcomes to examples already learned; `at_s` is the time of the example."""
        self._add(x, delta, None, at_s, 0.0)

    def to_bytes(self) -> bytes:
        """All that was learned, as bytes."""
        return struct.pack("<8s", b"linear01") + self._moments.to_bytes()

    @staticmethod
    def from_bytes(data: bytes) -> LinearPolicy:
        """Read a policy back."""
        if not data.startswith(b"linear01"):
            raise SnapshotError("policy does not begin as it should: written by another version, or damaged")
        moments = Moments.from_bytes(data[8:])
        made = LinearPolicy(PolicySpec(half_life_s=moments.half_life_s), moments.width)
        made._moments = moments
        return made

    def _rows(self, x: Floats) -> Floats:
        rows = np.asarray(x, dtype=np.float64)
        if rows.shape != (len(rows), self.dim) or not np.isfinite(rows).all():
            raise ValueError(f"x has shape {rows.shape}; expected (rows, {self.dim}) of finite numbers")
        return rows

    def _add(self, x: Floats, reward: Floats, weight: Floats | None, at_s: Floats | None, count: float) -> None:
        rows = self._rows(x)
        rewards = np.broadcast_to(np.asarray(reward, dtype=np.float64), (len(rows),))
        times = np.broadcast_to(np.asarray(0.0 if at_s is None else at_s, dtype=np.float64), (len(rows),))
        del weight
        if not np.isfinite(rewards).all() or not np.isfinite(times).all():
            raise ValueError("reward or at_s is not finite; expected finite numbers: drop the example")
        self._samples = None
        for row, value, time in zip(rows, rewards.tolist(), times.tolist(), strict=True):
            key = int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest(), "big")
            self._moments.add(0, row, value, time, key, count)

    def _thetas(self) -> Floats:
        if self._samples is None:
            moments, ridge = self._moments, np.eye(self.dim)
            age = moments.age()
            spread = np.linalg.inv(moments.gram[0] * age + ridge)
            mean = spread @ (moments.moment[0] * age)
            normals = np.random.Generator(np.random.PCG64(7)).standard_normal((self.dim, _SAMPLES))
            self._samples = mean[:, None] + 0.1 * np.linalg.cholesky(spread) @ normals
        return self._samples
