"""When whose next timer is due: an index in memory of what the profiles say."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Final

SLACK: Final = 1024  # outdated entries tolerated before the heap is rebuilt
_NOBODY: Final[Mapping[str, int | None]] = {}


class DueIndex:
    """Person -> earliest due time, and who is next.

    Who is parked has an earliest timer that is held: it stays due, and does not fire until `unpark`.

    The heap keeps outdated entries until they surface; they are recognised by the dictionary. At most
    2 * timers + `SLACK` entries.
    """

    def __init__(self, due: Mapping[str, int] | None = None) -> None:
        self._due = dict(due or {})
        self._parked: dict[str, int | None] = {}  # person -> when the next timer that is not held fires
        self._heap = [(due_ms, person) for person, due_ms in self._due.items()]
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._due)

    def get(self, person: str) -> int | None:
        """Their earliest due time in milliseconds, None for no timer."""
        return self._due.get(person)

    def update(self, changes: Mapping[str, int | None], parked: Mapping[str, int | None] = _NOBODY) -> None:
        """Set or clear timers; of those who are parked, say when the next one fires that is not held."""
        for person, due_ms in changes.items():
            before_ms = self._fires_ms(person)
            if due_ms is None:
                self._due.pop(person, None)
            else:
                self._due[person] = due_ms
            self._parked.pop(person, None)
            if person in parked:
                self._parked[person] = parked[person]
            fires_ms = self._fires_ms(person)
            if fires_ms is not None and fires_ms != before_ms:
                heapq.heappush(self._heap, (fires_ms, person))
        if len(self._heap) > 2 * len(self._due) + SLACK:
            times = ((self._fires_ms(person), person) for person in self._due)
            self._heap = [(fires_ms, person) for fires_ms, person in times if fires_ms is not None]
            heapq.heapify(self._heap)

    def unpark(self) -> None:
        """Let all timers fire again."""
        parked, self._parked = self._parked, {}
        for person in parked:
            heapq.heappush(self._heap, (self._due[person], person))

    def _fires_ms(self, person: str) -> int | None:
        return self._parked[person] if person in self._parked else self._due.get(person)

    def next_ms(self) -> int | None:
        """The earliest due time of all who are not parked."""
        while self._heap:
            due_ms, person = self._heap[0]
            if self._fires_ms(person) == due_ms:
                return due_ms
            heapq.heappop(self._heap)
        return None

    def until(self, limit_ms: int, most: int) -> list[str]:
        """Who is due at or before a time, at most so many, in order of (due, person); they stay in the index."""
        taken: list[tuple[int, str]] = []
        heap = self._heap
        while heap and heap[0][0] <= limit_ms and len(taken) < most:
            entry = heapq.heappop(heap)
            # Equal entries stand side by side, when a timer was moved away and back.
            if self._fires_ms(entry[1]) == entry[0] and (not taken or taken[-1] != entry):
                taken.append(entry)
        for entry in taken:
            heapq.heappush(heap, entry)
        return [person for _, person in taken]
