"""Sufficient statistics of linear models, linear in the reward and exact under forgetting."""

from __future__ import annotations

import math
import struct
from typing import Final

import numpy as np

from bandits.policy import Floats
from bandits.snapshot import SnapshotError

BUCKETS: Final = 64
_HEAD = struct.Struct("<8sIIddd")
_MAGIC: Final = b"moments1"
_FAR: Final = 1000.0  # half-lives: 2**-1000 of anything is nothing


class Moments:
    """Sums over examples (z, r, w) of several arms: A = sum w z z', b = sum w r z, and sums by bucket of identity.

    All are linear in the reward, so a late outcome is an addition of `w d z`, and any order of outcomes ends in the
    same sums. An example's weight is 2^((t - T) / half_life): T, the reference, is a whole number of half-lives and
    moves on with time, which multiplies everything by a power of two, exactly. So neither order nor batches matter.

    The spread of the buckets' sums of rewards tells how noisy a reward is, without squares of single rewards, which
    corrections could not keep.

    Parameters
    ----------
    width
        Length of z.
    half_life_s
        Seconds after which an example counts half; None: never.
    """

    def __init__(self, width: int, half_life_s: float | None = None) -> None:
        self.width = width
        self.half_life_s = half_life_s
        self.latest_s = -math.inf
        self.reference = 0.0  # in half-lives
        self.gram: Floats = np.zeros((0, width, width))
        self.moment: Floats = np.zeros((0, width))
        self.bucket_z: Floats = np.zeros((BUCKETS, width))
        self.bucket_r: Floats = np.zeros(BUCKETS)
        self.bucket_w2: Floats = np.zeros(BUCKETS)

    def grow(self) -> int:
        """Room for one more arm; its slot."""
        self.gram = np.concatenate([self.gram, np.zeros((1, self.width, self.width))])
        self.moment = np.concatenate([self.moment, np.zeros((1, self.width))])
        return len(self.moment) - 1

    def add(self, slot: int, z: Floats, reward: float, at_s: float, key: int, count: float) -> None:
        """Add `count` examples of reward `reward` (0: a correction; -1 and -reward: take one back)."""
        weight = self._weight(at_s)
        wz, bucket = weight * z, key % BUCKETS
        if count:
            self.gram[slot] += count * (wz[:, None] * z)
            self.bucket_z[bucket] += count * wz
            self.bucket_w2[bucket] += count * weight * weight
        if reward:
            self.moment[slot] += reward * wz
            self.bucket_r[bucket] += reward * weight

    def age(self) -> float:
        """Factor that makes a weight of the sums one as of the latest example: 1 for an example of just then."""
        if self.half_life_s is None or self.latest_s == -math.inf:
            return 1.0
        return math.exp2(self.reference - self.latest_s / self.half_life_s)

    def _weight(self, at_s: float) -> float:
        self.latest_s = max(self.latest_s, at_s)
        if self.half_life_s is None:
            return 1.0
        age = at_s / self.half_life_s
        if age >= self.reference + 1.0 or not self.gram.any():
            self._move_to(max(math.floor(age), self.reference if self.gram.any() else -math.inf))
        return math.exp2(max(age - self.reference, -_FAR))

    def _move_to(self, reference: float) -> None:
        factor = math.exp2(max(self.reference - reference, -_FAR)) if reference > self.reference else 1.0
        self.gram *= factor
        self.moment *= factor
        self.bucket_z *= factor
        self.bucket_r *= factor
        self.bucket_w2 *= factor * factor
        self.reference = reference

    def to_bytes(self) -> bytes:
        """All of it as little-endian doubles after a short head; of the symmetric sums one half."""
        upper = np.triu_indices(self.width)
        parts = (self.gram[:, *upper], self.moment, self.bucket_z, self.bucket_r, self.bucket_w2)
        head = _HEAD.pack(_MAGIC, self.width, len(self.moment), self.half_life_s or 0.0, self.latest_s, self.reference)
        return head + b"".join(np.ascontiguousarray(part, "<f8").tobytes() for part in parts)

    @staticmethod
    def from_bytes(data: bytes) -> Moments:
        """Read them back.

        Raises
        ------
        SnapshotError
            If these bytes are not what `to_bytes` gives.
        """
        if len(data) < _HEAD.size or not data.startswith(_MAGIC):
            raise SnapshotError("statistics do not begin as they should: written by another version, or damaged")
        _, width, arms, half_life_s, latest_s, reference = _HEAD.unpack_from(data)
        triangle = width * (width + 1) // 2
        sizes = [arms * triangle, arms * width, BUCKETS * width, BUCKETS, BUCKETS]
        if len(data) != _HEAD.size + 8 * sum(sizes):
            raise SnapshotError(f"statistics have {len(data)} bytes; expected {_HEAD.size + 8 * sum(sizes)}")
        numbers = np.frombuffer(data, "<f8", offset=_HEAD.size).astype(np.float64)
        if not np.isfinite(numbers).all() or math.isnan(latest_s) or not math.isfinite(reference + half_life_s):
            raise SnapshotError("statistics hold a number that is not finite")
        made = Moments(width, half_life_s or None)
        made.latest_s, made.reference = latest_s, reference
        halves, moment, bucket_z, bucket_r, bucket_w2 = np.split(numbers, np.cumsum(sizes)[:-1])
        rows, columns = np.triu_indices(width)
        made.gram = np.zeros((arms, width, width))
        made.gram[:, rows, columns] = made.gram[:, columns, rows] = halves.reshape(arms, triangle)
        made.moment = moment.reshape(arms, width).copy()
        made.bucket_z = bucket_z.reshape(BUCKETS, width).copy()
        made.bucket_r, made.bucket_w2 = bucket_r.copy(), bucket_w2.copy()
        return made
