"""When whose next timer is due: an index in memory of what the profiles say."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Final

SLACK: Final = 1024  # outdated entries tolerated before the heap is rebuilt


class DueIndex:
    """Person -> earliest due time, and who is next.

    The heap keeps outdated entries until they surface; they are recognised by the dictionary. At most
    2 * timers + `SLACK` entries.
    """

    def __init__(self, due: Mapping[str, int] | None = None) -> None:
        self._due = dict(due or {})
        self._heap = [(due_ms, person) for person, due_ms in self._due.items()]
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._due)

    def get(self, person: str) -> int | None:
        """Their earliest due time in milliseconds, None for no timer."""
        return self._due.get(person)

    def update(self, changes: Mapping[str, int | None]) -> None:
        """Set or clear timers."""
        for person, due_ms in changes.items():
            if due_ms is None:
                self._due.pop(person, None)
            elif self._due.get(person) != due_ms:
                self._due[person] = due_ms
                heapq.heappush(self._heap, (due_ms, person))
        if len(self._heap) > 2 * len(self._due) + SLACK:
            self._heap = [(due_ms, person) for person, due_ms in self._due.items()]
            heapq.heapify(self._heap)

    def next_ms(self) -> int | None:
        """The earliest due time of all."""
        while self._heap:
            due_ms, person = self._heap[0]
            if self._due.get(person) == due_ms:
                return due_ms
            heapq.heappop(self._heap)
        return None

    def until(self, limit_ms: int, most: int) -> list[str]:
        """Who is due at or before a time, at most so many, in order of (due, person); they stay in the index."""
        taken: list[tuple[int, str]] = []
        heap, due = self._heap, self._due
        while heap and heap[0][0] <= limit_ms and len(taken) < most:
            entry = heapq.heappop(heap)
            # Equal entries stand side by side, when a timer was moved away and back.
            if due.get(entry[1]) == entry[0] and (not taken or taken[-1] != entry):
                taken.append(entry)
        for entry in taken:
            heapq.heappush(heap, entry)
        return [person for _, person in taken]
