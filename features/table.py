"""Rows by person, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from features.layout import ROW, WORDS, Rows, take


class RowTable:
    """Rows by person, in one slab: about 730 bytes a person and one dictionary entry.

    The dictionary's order is the order of use. `touch` once per batch is what keeps it so; `gather` and `put`
    do not change the order of who is already there.
    """

    __slots__ = ("_free", "_slab", "_slots")

    def __init__(self) -> None:
        self._slab: Rows = np.zeros(0, ROW)
        self._slots: dict[str, int] = {}
        self._free: list[int] = []

    def __contains__(self, person: object) -> bool:
        return person in self._slots

    def __len__(self) -> int:
        return len(self._slots)

    def missing(self, persons: Iterable[str]) -> list[str]:
        """Those of `persons` who are not in the table."""
        slots = self._slots
        return [person for person in persons if person not in slots]

    @property
    def nbytes(self) -> int:
        """Bytes of the slab, without the dictionary."""
        return int(self._slab.nbytes)

    def gather(self, persons: Sequence[str]) -> Rows:
        """Copy the rows of `persons`, in that order.

        Raises
        ------
        KeyError
            A person is not in the table: a row that was not read must never pass for a new person's.
        """
        return take(self._slab, self._index(persons))

    def flags(self, persons: Sequence[str]) -> NDArray[np.uint32]:
        """Flags of the rows of `persons`, without copying the rows; KeyError as for `gather`."""
        flags: NDArray[np.uint32] = self._slab["flags"][self._index(persons)]
        return flags

    def put(self, persons: Sequence[str], rows: Rows) -> None:
        """Insert or overwrite: `rows[i]` belongs to `persons[i]`; of a person named twice the last stays."""
        assert len(persons) == len(rows)
        if absent := self.missing(persons):
            self.add_new(absent)
        self._words()[self._index(persons)] = np.ascontiguousarray(rows).view(np.uint64).reshape(-1, WORDS)

    def add_new(self, persons: Iterable[str]) -> None:
        """Insert rows of zeros for those of `persons` who are not there."""
        slots, free = self._slots, self._free
        new = [person for person in dict.fromkeys(persons) if person not in slots]
        if len(new) > len(free):
            self._grow(len(new) - len(free))
        for person in new:
            slots[person] = free.pop()

    def touch(self, persons: Iterable[str]) -> None:
        """Make `persons` the most recently used, the last of them most of all; who is absent stays so."""
        slots = self._slots
        for person in persons:
            slot = slots.pop(person, None)
            if slot is not None:
                slots[person] = slot

    def evict(self, keep: int) -> list[str]:
        """Drop the least recently used until at most `keep` are left.

        Returns
        -------
        list of str
            Who was dropped, the longest unused first.
        """
        assert keep >= 0
        slots = self._slots
        gone = list(islice(slots, max(0, len(slots) - keep)))
        freed = [slots.pop(person) for person in gone]
        self._words()[freed] = 0
        self._free.extend(freed)
        return gone

    def clear(self) -> None:
        """Forget everybody and give the memory back."""
        self._slab = np.zeros(0, ROW)
        self._slots.clear()
        self._free.clear()

    def _words(self) -> NDArray[np.uint64]:
        words: NDArray[np.uint64] = self._slab.view(np.uint64).reshape(-1, WORDS)
        return words

    def _index(self, persons: Sequence[str]) -> NDArray[np.int64]:
        return np.fromiter(map(self._slots.__getitem__, persons), np.int64, len(persons))

    def _grow(self, wanted: int) -> None:
        """Add at least `wanted` free rows; a fifth at a time, so that a row in use costs less than 1 KB."""
        old = len(self._slab)
        size = max(1024, old + wanted, old + old // 5)
        slab = np.zeros(size, ROW)
        slab.view(np.uint64).reshape(-1, WORDS)[:old] = self._words()
        self._slab = slab
        self._free.extend(range(size - 1, old - 1, -1))  # popped from the end: the lowest slot first
