"""What the owner of a partition remembers of its people, so that it need not ask Redis.

Coherent without any protocol: with one fenced writer nobody else changes the view, and the owner writes
here what it has committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from features.rows import RowTable, decode_many


class Cache:
    """Rows and profiles of the people seen last.

    Parameters
    ----------
    most
        How many people are kept between steps; during one it holds whomever the step needs.
    """

    def __init__(self, most: int) -> None:
        assert most > 0
        self._most = most
        self.rows = RowTable()
        self.profiles: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, people: Sequence[str], rows: Sequence[bytes | None], profiles: Sequence[bytes | None]) -> None:
        """Take in what the view says about people; None: it does not know them."""
        known = [(person, row) for person, row in zip(people, rows, strict=True) if row is not None]
        if known:
            self.rows.put([person for person, _ in known], decode_many([row for _, row in known]))
        unknown = [person for person, row in zip(people, rows, strict=True) if row is None]
        if unknown:
            self.rows.add_new(unknown)
        for person, profile in zip(people, profiles, strict=True):
            if profile:
                self.profiles[person] = profile

    def store(self, people: Sequence[str], rows: NDArray[np.void], profiles: Mapping[str, bytes]) -> None:
        """Take in what a committed step changed."""
        self.rows.put(people, rows)
        self.rows.touch(people)
        for person, profile in profiles.items():
            if profile:
                self.profiles[person] = profile
            else:
                self.profiles.pop(person, None)

    def trim(self) -> None:
        """Forget those longest unused beyond the bound; only between steps."""
        if len(self.rows) > self._most:
            for person in self.rows.evict(self._most):
                self.profiles.pop(person, None)

    def clear(self) -> None:
        """Forget everyone."""
        self.rows.clear()
        self.profiles.clear()
