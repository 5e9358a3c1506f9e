"""Sufficient statistics of linear models: linear in the reward, exact under forgetting."""

from __future__ import annotations

import math
import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandits.policy import Floats
from bandits.snapshot import SnapshotError

LARGEST: Final = 1e30  # magnitude of a number that may be learned: its products and sums stay finite
_LEAST_BUCKETS: Final = 64
_HEAD: Final = struct.Struct("<8sIIdddddddd")
_MAGIC: Final = b"moments1"
NOTHING: Final = 1e-100  # examples: what has faded to less is on its way to 0, and no longer exact there
_ROUNDING: Final = 1e-13  # of rewards that cancel
_WHOLE: Final = 1e-9  # how near to a whole number a sum of portions of 1 is
_REPEATED: Final = 3.0  # examples a bucket from which on buckets hold repeated rows rather than different ones
_MANY: Final = 20.0  # examples a bucket from which on the noise is held against the variance of all rewards,
_MOST_OF_ALL: Final = 16.0  # of which it may be so many times: in however many portions a reward came
_SURE: Final = 16.0  # degrees of freedom from which on the buckets speak for themselves
_HOUR_S: Final = 3600.0
_DAY_S: Final = 86400.0
_WEEK_S: Final = 7 * _DAY_S


class Moments:
    """Sums over examples (z, r, w) of several arms: A = sum w z z', b = sum w r z, and sums by bucket of identity.

    All are linear in the reward, so a late outcome is an addition of `w d z`, and any order of outcomes ends in the
    same sums. An example's weight is 2^((t - T) / half_life): T, the reference, is a whole number of half-lives and
    moves on with time, which multiplies everything by a power of two, exactly. So neither order nor batches matter.

    How noisy a reward is, is read off the buckets: examples fall into them by a hash of their identity, so the sum of
    rewards of a bucket spreads as a sum of so many independent rewards does. No square of a single reward is needed,
    which corrections could not keep. Where the identity is no more than a row that repeats, the buckets do not tell;
    then, and only then, squares of what came in are used, coarsely (`_tabular_noise`).

    Parameters
    ----------
    width
        Length of z, whose first entry is 1.
    half_life_s
        Seconds after which an example counts half; None: never.

    Attributes
    ----------
    seen
        Number of examples, whatever their age.
    """

    def __init__(self, width: int, half_life_s: float | None = None) -> None:
        self.width = width
        self.half_life_s = half_life_s
        self.first_s = math.inf
        self.latest_s = -math.inf
        self.reference = 0.0  # T, in half-lives
        self.seen = 0.0
        self.week = 0.0  # examples, each counting half after a week, as of the latest
        self.squares = 0.0  # of rewards and corrections as they came
        self.unit = 0.0  # the largest magnitude among them
        self.other_units = False  # whether any other magnitude but 0 was among them
        buckets = _buckets(width)
        self.gram: Floats = np.zeros((0, width, width))
        self.moment: Floats = np.zeros((0, width))
        self.nonzero: Floats = np.zeros(width)
        self.bucket_z: Floats = np.zeros((buckets, width))
        self.bucket_r: Floats = np.zeros(buckets)
        self.bucket_w2: Floats = np.zeros(buckets)

    def grow(self, arms: int = 1) -> int:
        """Room for more arms; the first one's slot."""
        self.gram = np.concatenate([self.gram, np.zeros((arms, self.width, self.width))])
        self.moment = np.concatenate([self.moment, np.zeros((arms, self.width))])
        return len(self.moment) - arms

    def drop(self, slot: int) -> None:
        """Forget an arm; those after it move down by one."""
        self.gram, self.moment = np.delete(self.gram, slot, axis=0), np.delete(self.moment, slot, axis=0)

    def add(self, slot: int, z: Floats, reward: float, at_s: float, key: int, count: float) -> None:
        """Add `count` examples of reward `reward` (0: a correction; -1 and -reward: take one back)."""
        self._reach(at_s)
        weight = self._weight(at_s)
        wz, bucket = weight * z, key % len(self.bucket_r)
        if count:
            self.gram[slot] += (count * weight) * (z[:, None] * z)  # symmetric to the bit, as its stored half is
            self.nonzero += count * weight * (z != 0.0)
            self.bucket_z[bucket] += count * wz
            self.bucket_w2[bucket] += count * weight * weight
            self.seen += count
            self.first_s = min(self.first_s, at_s)
            self.week += count * _faded(at_s - self.latest_s)
        if reward:
            self.moment[slot] += reward * wz
            self.bucket_r[bucket] += reward * weight
            self._size(abs(reward), abs(reward), (-1.0 if count < 0.0 else 1.0) * weight * reward * reward)

    def add_rows(
        self,
        slots: NDArray[np.intp],
        z: Floats,
        reward: Floats,
        weight: Floats,
        at_s: Floats | None,
        keys: NDArray[np.uint64],
        count: float,
    ) -> None:
        """`add` for many examples at once, each `weight` (more than 0) times; `count` is 1 or 0.

        `at_s` None is the latest time known.
        """
        times = np.full(len(z), self.now_s) if at_s is None else at_s
        self._reach(float(times.max()))
        seen, fresh = weight, np.ones(len(z))
        if self.half_life_s is not None:
            fresh = np.exp2(times / self.half_life_s - self.reference)
            weight = weight * fresh
        wz, bucket = weight[:, None] * z, (keys % np.uint64(len(self.bucket_r))).astype(np.intp)
        if count:
            if len(self.gram) > 1:
                np.add.at(self.gram, slots, wz[:, :, None] * z[:, None, :])
            else:
                square = wz.T @ z
                self.gram[0] += 0.5 * (square + square.T)
            self.nonzero += weight @ (z != 0.0)
            np.add.at(self.bucket_z, bucket, wz)
            np.add.at(self.bucket_w2, bucket, weight * fresh)
            self._volume(times, seen)
        np.add.at(self.moment, slots, reward[:, None] * wz)
        np.add.at(self.bucket_r, bucket, reward * weight)
        sizes = np.abs(reward[reward != 0.0])
        if len(sizes):
            self._size(float(sizes.min()), float(sizes.max()), float(weight @ (reward * reward)))

    @property
    def now_s(self) -> float:
        """Time of the latest example, 0 before the first: what an example without a time is given."""
        return self.latest_s if self.latest_s > -math.inf else 0.0

    @property
    def age(self) -> float:
        """Factor that makes a weight of the sums one as of the latest example: 1 for an example of just then."""
        if self.half_life_s is None or self.latest_s == -math.inf:
            return 1.0
        return math.exp2(self.reference - self.latest_s / self.half_life_s)

    @property
    def examples(self) -> float:
        """Examples, each counting as much as its age leaves of it."""
        return float(self.bucket_z[:, 0].sum()) * self.age

    @property
    def per_day(self) -> float:
        """Examples a day, of late: the recent ones count most, and the time before the first not at all."""
        weeks = max(self.latest_s - self.first_s, _HOUR_S) / _WEEK_S if self.seen else 1.0
        return self.week * math.log(2.0) / (1.0 - math.exp2(-weeks)) * _DAY_S / _WEEK_S

    @property
    def success(self) -> float:
        """What a success is worth, taken from the largest that came in: 1, or a power of ten that is no smaller."""
        return float(10.0 ** max(math.ceil(math.log10(self.unit)), 0)) if self.unit > 1.0 else 1.0

    def noise(self, coefficients: Floats) -> float:
        """Variance of a single reward around `coefficients' z`, as of the latest example; 0: no reward but 0."""
        held = self.bucket_w2 > NOTHING**2
        w2, sums, total = self.bucket_w2[held], self.bucket_r[held], self.bucket_z[held, 0]
        cancelled = _ROUNDING * math.sqrt(max(float(total.sum()) * self.squares, 0.0))  # by Cauchy and Schwarz
        if np.abs(sums).max(initial=0.0) <= cancelled:
            return 0.0
        count = float(total.sum() ** 2 / w2.sum())
        free = len(sums) - self._directions()
        mean = float(sums.sum() / total.sum())
        least = 1e-6 * mean * mean
        if free < _SURE and count > _REPEATED * len(sums):
            return max(self._tabular_noise(mean, sums), least)
        around_mean = (mean * mean + float(((sums - mean * total) ** 2 / w2).sum())) / len(sums)
        if free <= 1.0:
            return max(around_mean, least)
        rest = sums - self.bucket_z[held] @ coefficients
        around_fit = float((rest * rest).sum() / w2.sum()) * len(sums) / free
        sure = min((free - 1.0) / _SURE, 1.0)
        fitted = sure * around_fit + (1.0 - sure) * around_mean
        if count > _MANY * len(sums):  # rows that repeat keep what the line misses of them together: that is no noise
            fitted = min(fitted, _MOST_OF_ALL * self._spread(mean))
        return max(fitted, least)

    def _directions(self) -> float:
        """How many different directions z has taken, at most."""
        return float((self.nonzero > NOTHING).sum())

    def _tabular_noise(self, mean: float, sums: Floats) -> float:
        """Where rows repeat: of outcomes that are all 0 or one unit the binomial variance, else from squares.

        A correction cannot know the reward it corrects. Portions of at most 1 that add up to whole numbers in every
        bucket are of successes worth 1. Else squares are those of what came in; they are rounded to a power of four, so
        that it does not matter, as a rule, in which portions a reward came.
        """
        whole = self.unit <= 1.0 and bool((np.abs(sums - np.rint(sums)) <= _WHOLE).all())
        unit = 1.0 if whole else self.unit
        if (whole or not self.other_units) and 0.0 <= mean <= unit:
            return mean * (unit - mean)
        return float(4.0 ** round(math.log(max(self._spread(mean), 1e-300), 4.0)))

    def _spread(self, mean: float) -> float:
        """Variance of rewards around their mean, from what came in."""
        variance = self.squares / max(float(self.bucket_z[:, 0].sum()), 1e-300) - mean * mean
        return variance if variance > 0.0 else mean * mean

    def _size(self, least: float, most: float, squares: float) -> None:
        self.other_units = self.other_units or least != most or self.unit not in {0.0, most}
        self.unit = max(self.unit, most)
        self.squares += squares

    def _volume(self, times: Floats, seen: Floats) -> None:
        self.seen += float(seen.sum())
        self.first_s = min(self.first_s, float(times.min()))
        self.week += float(seen @ np.exp2((times - self.latest_s) / _WEEK_S))

    def _reach(self, at_s: float) -> None:
        """Move on to a time, if it is later than all before."""
        if at_s <= self.latest_s:
            return
        if self.latest_s > -math.inf:
            self.week *= _faded(self.latest_s - at_s)
        first, self.latest_s = self.latest_s == -math.inf, at_s
        if self.half_life_s is None:
            return
        reference = math.floor(at_s / self.half_life_s)
        if first:
            self.reference = float(reference)
        elif reference > self.reference:
            factor = math.exp2(self.reference - reference)
            self.gram *= factor
            self.moment *= factor
            self.nonzero *= factor
            self.bucket_z *= factor
            self.bucket_r *= factor
            self.bucket_w2 *= factor * factor
            self.squares *= factor
            self.reference = float(reference)

    def _weight(self, at_s: float) -> float:
        if self.half_life_s is None:
            return 1.0
        return math.exp2(at_s / self.half_life_s - self.reference)

    def to_bytes(self) -> bytes:
        """All of it as little-endian doubles after a short head; of the symmetric sums one half."""
        upper = np.triu_indices(self.width)
        parts = (
            self.gram[:, *upper], self.moment, self.nonzero, self.bucket_z, self.bucket_r, self.bucket_w2
        )  # fmt: skip
        scalars = (self.half_life_s or 0.0, self.latest_s, self.reference, self.seen, self.week, self.squares)
        unit = -self.unit if self.other_units else self.unit
        head = _HEAD.pack(_MAGIC, self.width, len(self.moment), *scalars, unit, self.first_s)
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
            raise SnapshotError("statistics do not begin as they should: written by another version")
        _, width, arms, half_life_s, latest_s, *scalars, unit, first_s = _HEAD.unpack_from(data)
        numbers = np.frombuffer(data, "<f8", offset=_HEAD.size, count=(len(data) - _HEAD.size) // 8).astype(np.float64)
        finite = np.isfinite([half_life_s, *scalars, unit]).all() and np.isfinite(numbers).all()
        if not finite or half_life_s < 0.0 or not latest_s < math.inf or not first_s > -math.inf:
            raise SnapshotError("statistics hold a number that is not finite")
        triangle, buckets = width * (width + 1) // 2, _buckets(width)
        sizes = [arms * triangle, arms * width, width, buckets * width, buckets, buckets]
        if width < 1 or len(data) != _HEAD.size + 8 * sum(sizes):
            raise SnapshotError(f"statistics have {len(data)} bytes; expected {_HEAD.size + 8 * sum(sizes)}")
        made = Moments(width, half_life_s or None)
        made.first_s, made.latest_s = first_s, latest_s
        made.reference, made.seen, made.week, made.squares = scalars
        made.unit, made.other_units = abs(unit), unit < 0.0
        halves, moment, nonzero, bucket_z, bucket_r, bucket_w2 = np.split(numbers, np.cumsum(sizes)[:-1])
        rows, columns = np.triu_indices(width)
        made.gram = np.zeros((arms, width, width))
        made.gram[:, rows, columns] = made.gram[:, columns, rows] = halves.reshape(arms, triangle)
        made.moment, made.nonzero = moment.reshape(arms, width).copy(), nonzero.copy()
        made.bucket_z = bucket_z.reshape(buckets, width).copy()
        made.bucket_r, made.bucket_w2 = bucket_r.copy(), bucket_w2.copy()
        return made


def _faded(age_s: float) -> float:
    """Of an example in the recent volume, `age_s` (0 or less) after the latest."""
    return math.exp2(age_s / _WEEK_S)


def _buckets(width: int) -> int:
    """Enough of them that their sums of rewards spread in more directions than `width`; a power of two."""
    return max(_LEAST_BUCKETS, 1 << (2 * width - 1).bit_length())
