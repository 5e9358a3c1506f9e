"""Counts of each distinct row of features: arms that are nothing but their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from bandits.belief import Outlook
from bandits.beta_bernoulli import beta_belief, beta_prior
from bandits.linear import MAX_DIM, checked_dim, checked_rows, outlook_of
from bandits.moments import Moments
from bandits.policy import Floats
from bandits.rules import probabilities
from bandits.snapshot import SnapshotError, seal, unseal
from bandits.spec import PolicySpec

MAX_ROWS: Final = 10_000


class _Stored(msgspec.Struct, frozen=True, array_like=True, tag="tally1"):
    dim: int
    names: list[bytes]
    moments: bytes


class TallyModel:
    """Examples and rewards of each distinct row; the row is the arm's name.

    Parameters
    ----------
    dim
        Features of a row.
    half_life_s
        Seconds after which an example counts half; None: never.
    """

    def __init__(self, dim: int, half_life_s: float | None = None) -> None:
        self.dim = checked_dim(dim)
        self._moments = Moments(1, half_life_s)
        self._slots: dict[bytes, int] = {}

    def add_rows(self, x: Floats, reward: Floats, weight: Floats, at_s: Floats | None, count: float) -> None:
        """Many examples (`count` 1) or corrections (0).

        Raises
        ------
        ValueError
            If there would be more than 10,000 distinct rows; nothing has changed then.
        """
        names = [row.tobytes() for row in x + 0.0]
        new = [name for name in dict.fromkeys(names) if name not in self._slots]
        arms = len(self._slots) + len(new)
        if arms > MAX_ROWS:
            raise ValueError(
                f"x makes {arms} distinct rows; expected at most {MAX_ROWS}: beta_bernoulli has no context"
            )
        first = self._moments.grow(len(new))
        self._slots |= {name: slot for slot, name in enumerate(new, first)}
        slots = np.array([self._slots[name] for name in names], dtype=np.intp)
        self._moments.add_rows(slots, np.ones((len(x), 1)), reward, weight, at_s, slots.astype(np.uint64), count)

    @property
    def half_life_s(self) -> float | None:
        """Seconds after which an example counts half."""
        return self._moments.half_life_s

    def ready(self, spec: PolicySpec) -> ReadyTally:
        """The policy that follows from what has been learned."""
        moments = self._moments
        tried, sums = moments.gram[:, 0, 0] * moments.age, moments.moment[:, 0] * moments.age
        unit = moments.success
        prior = beta_prior(tried, np.clip(sums / unit, 0.0, tried))
        return ReadyTally(spec, outlook_of(spec, moments), self.dim, dict(self._slots), tried, sums, prior, unit)

    def to_bytes(self) -> bytes:
        """All of it as bytes; equal models give equal bytes."""
        return seal(msgspec.msgpack.encode(_Stored(self.dim, list(self._slots), self._moments.to_bytes())))

    @staticmethod
    def from_bytes(data: bytes) -> TallyModel:
        """Read a model back.

        Raises
        ------
        SnapshotError
            If these bytes are not what `to_bytes` gives.
        """
        try:
            stored = msgspec.msgpack.decode(unseal(data), type=_Stored)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SnapshotError(f"tally cannot be read: {error}") from error
        moments = Moments.from_bytes(stored.moments)
        slots = {name: slot for slot, name in enumerate(stored.names)}
        shapes = 1 <= stored.dim <= MAX_DIM and moments.width == 1 and len(slots) == len(moments.moment) <= MAX_ROWS
        if not shapes or any(len(name) != 8 * stored.dim for name in slots):
            raise SnapshotError(f"tally of {len(slots)} rows does not fit statistics of {len(moments.moment)}")
        made = TallyModel(stored.dim, moments.half_life_s)
        made._moments, made._slots = moments, slots
        return made


@dataclass(frozen=True, slots=True)
class ReadyTally:
    """A policy over rows that are names, as of one moment, ready to answer; it never changes.

    Attributes
    ----------
    spec
        The algorithm and its parameters.
    outlook
        Decisions still to come.
    dim
        Features of a row.
    slots
        Row -> its place in `tried` and `sums`.
    tried, sums : float64[rows]
        Examples of each row and their rewards.
    prior
        (a, b) of the Beta distribution of a row that was never tried.
    unit
        What a success is worth.
    """

    spec: PolicySpec
    outlook: Outlook
    dim: int
    slots: dict[bytes, int]
    tried: Floats
    sums: Floats
    prior: tuple[float, float]
    unit: float

    def probabilities(self, x: Floats) -> Floats:
        """Probability of each row of `x` (float64[arms, dim]), or of each batch of rows ([batch, arms, dim])."""
        rows = checked_rows(x, self.dim)
        names = [row.tobytes() for row in (rows + 0.0).reshape(-1, self.dim)]
        slots = np.array([self.slots.get(name, -1) for name in names], dtype=np.intp).reshape(-1, rows.shape[-2])
        tried, sums = np.append(self.tried, 0.0)[slots], np.append(self.sums, 0.0)[slots]
        shares = probabilities(beta_belief(tried, sums, self.prior, self.unit, self.outlook), self.spec)
        return shares.reshape(rows.shape[:-1])
