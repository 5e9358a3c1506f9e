"""What the owner of a partition needs from Kafka, Redis and the clock, and what can go wrong there.

`Partition` knows only these. `kafka.py` and `store.py` are the real ones; tests drive the same owner with fakes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from decisioning.effects import Outgoing

INPUTS: Final = ("events", "internal")
NOTHING: Final = -1  # the step number of a view that is not there


class FencedError(Exception):
    """A newer owner has taken the partition: nothing of ours can be committed any more."""


class UnknownOutcomeError(Exception):
    """A request to Kafka failed or timed out and may still be carried out: only a new producer can tell."""


class UnavailableError(Exception):
    """Redis did not answer, or could not write; whether it did is settled by asking again."""


class ConflictError(Exception):
    """The view is not at the step it was expected at.

    Parameters
    ----------
    found
        The step it is at; `NOTHING` where there is no view or it is being rebuilt.
    """

    def __init__(self, found: int) -> None:
        super().__init__(f"the view is at step {found}")
        self.found = found


class RefusedError(Exception):
    """Going on would do damage; one line with the remedy, for whoever operates this."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What the group's committed offsets of one partition say.

    Attributes
    ----------
    offsets
        Input -> next offset to read, only where one was committed.
    metadata
        As it was committed with them; empty if somebody else moved the offsets.
    """

    offsets: Mapping[str, int]
    metadata: str


@dataclass(frozen=True, slots=True)
class Meta:
    """Where the view of one partition is.

    Attributes
    ----------
    n
        The last step it contains; `NOTHING` while it is rebuilt from the beginning.
    d
        Position in the changelog up to which it contains everything.
    offsets
        Input -> next offset to read after step n.
    partitions
        How many partitions `events` had.
    state
        Empty: whole. `replay`: everything up to d and nothing else, on its way to a later step.
        `torn`: a write stopped in the middle.
    at_ms
        Time of the last write.
    """

    n: int
    d: int
    offsets: Mapping[str, int]
    partitions: int
    state: str
    at_ms: int


@dataclass(slots=True)
class Changes:
    """What to write into the view: encoded rows, profiles (empty: none any more) and timers (None: none any more)."""

    people: Sequence[str] = ()
    rows: Sequence[bytes] = ()
    profiles: Mapping[str, bytes] = field(default_factory=dict)
    due: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the changelog."""

    offset: int
    key: bytes
    value: bytes


class Clock(Protocol):
    """Time, as far as the shell needs any."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""

    def monotonic_s(self) -> float:
        """Seconds since whenever; never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Log(Protocol):
    """Kafka, as the owner of one partition sees it. Any method but `release` may raise `UnknownOutcomeError`."""

    @property
    def transactional(self) -> bool:
        """Whether steps are transactions; without them everything is sent at least once."""

    async def acquire(self) -> None:
        """Take a new producer: fences the one before it, wherever it is, and settles what it left open."""

    async def committed(self) -> Committed:
        """Offsets of all inputs as committed; stale unless asked after `acquire`."""

    async def earliest(self) -> Mapping[str, int]:
        """The first offset that is still there, by input."""

    async def bounds(self) -> tuple[int, int]:
        """First offset of the changelog, and its end up to which everything is settled."""

    def changelog(self, start: int, end: int) -> AsyncGenerator[tuple[Sequence[Entry], int], None]:
        """Read what was committed from start on, in chunks with the position after each, until past end."""

    async def begin(self) -> None:
        """Open a transaction."""

    async def append(self, changelog: Sequence[tuple[bytes, bytes]], outputs: Mapping[str, Sequence[Outgoing]]) -> int:
        """Send everything of a step and await all acks; returns the changelog position after it.

        Without transactions the changelog goes last.

        Raises
        ------
        FencedError
            As do the two below.
        """

    async def offsets(self, offsets: Mapping[str, int], metadata: str) -> None:
        """Add the inputs' offsets to the transaction; without transactions, commit them."""

    async def commit(self) -> None:
        """Commit the transaction."""

    async def release(self) -> None:
        """Throw the producer away, at once, whatever it is doing."""


class Store(Protocol):
    """Redis, as the owner of one partition sees it. Every method may raise `UnavailableError`."""

    async def meta(self) -> Meta | None:
        """Where the view is; None: there is none."""

    async def read(self, n: int, people: Sequence[str]) -> tuple[list[bytes | None], list[bytes | None]]:
        """Rows and profiles of people at step n.

        Raises
        ------
        ConflictError
            The view is at another step, so that a miss would mean nothing.
        """

    async def due(self, n: int) -> dict[str, int]:
        """All pending timers: person -> earliest time. Raises `ConflictError` as `read` does."""

    async def apply(self, before: Meta, after: Meta, changes: Changes) -> None:
        """Advance the view by one step; repeating it changes nothing.

        Raises
        ------
        ConflictError
            The view is not exactly at `before` (or already at `after`).
        """

    async def wipe(self, seen: Meta | None, d: int) -> None:
        """Empty the view if it is still as seen; it then contains everything up to d, which is nothing."""

    async def replay(self, d: int, d_after: int, changes: Changes, at_ms: int) -> None:
        """Add one chunk of the changelog to a view that is exactly at d."""

    async def seal(self, d: int, meta: Meta) -> None:
        """Declare a view that was replayed up to d to be at a step."""


class LearnerLog(Protocol):
    """Kafka, as the learner sees it. Any method but `release` may raise `UnknownOutcomeError`."""

    async def acquire(self) -> None:
        """Take a new producer: fences the learner before it, wherever it is, and settles what it left open."""

    async def bounds(self) -> tuple[int, int]:
        """First offset of `examples`, and up to where everything in it is committed or aborted."""

    async def models(self) -> Mapping[str, bytes]:
        """Key -> latest value of `models`; stale unless asked after `acquire`."""

    async def history(self, model: str) -> Sequence[bytes]:
        """The last snapshots of a model that are kept, oldest first."""

    async def begin(self) -> None:
        """Open a transaction."""

    async def append(self, topic: str, records: Sequence[Outgoing]) -> None:
        """Append to a topic and await the acks."""

    async def commit(self) -> None:
        """Commit the transaction."""

    async def release(self) -> None:
        """Discard the producer."""
