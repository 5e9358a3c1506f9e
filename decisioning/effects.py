"""What the step reads and what it wants done: plain data between the pure engine and the shell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.rows import ROW, RowTable

Headers = tuple[tuple[str, bytes], ...]


class Record(Protocol):
    """One record as a log holds it; `aiokafka.ConsumerRecord` is one, and so is a line of a file."""

    @property
    def topic(self) -> str:
        """Its topic, with any prefix."""

    @property
    def partition(self) -> int:
        """Its partition's number."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def key(self) -> bytes | None:
        """Its key, if it has one."""

    @property
    def value(self) -> bytes | None:
        """What it says; None for a tombstone."""

    @property
    def timestamp(self) -> int:
        """Append time in milliseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class State:
    """What is known of one partition's people, as far as this step needs it.

    Parameters
    ----------
    partition, partitions
        Number of this partition and how many there are; a person lives where murmur2 of the id says.
    rows
        Feature rows. Everyone whom `Engine.reads` named is in it (a new person as a row of zeros).
    profiles
        Encoded profiles of those who have one.
    stock
        Product id -> whether it is in stock, where that was ever said.
    """

    partition: int
    partitions: int
    rows: RowTable
    profiles: Mapping[str, bytes]
    stock: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to publish. `partition` None means the number of the partition that publishes it."""

    key: bytes | None
    value: bytes
    headers: Headers = ()
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that cannot be an event, as it was read, and why."""

    record: Record
    reason: str  # a short code, safe as a metric label
    message: str  # one sentence; never holds the record's content


@dataclass(slots=True)
class Effects:
    """Everything one step changes, as data; the shell commits all of it or nothing.

    Attributes
    ----------
    people
        Who changed; `rows[i]` is the new row of `people[i]`.
    profiles
        New encoded profiles of those of `people` whose profile changed (empty bytes: no profile any more).
    due
        Person -> earliest time in milliseconds a timer of theirs fires, None for no timer; only where it may have
        changed.
    fired
        (campaign, fire_at in milliseconds) of each record of `decisions`, in the same order.
    counts
        (metric name without its prefix, label values…) -> increment.
    """

    people: list[str] = field(default_factory=list)
    rows: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, ROW))
    profiles: dict[str, bytes] = field(default_factory=dict)
    due: dict[str, int | None] = field(default_factory=dict)
    decisions: list[Outgoing] = field(default_factory=list)
    log: list[Outgoing] = field(default_factory=list)
    examples: list[Outgoing] = field(default_factory=list)
    internal: list[Outgoing] = field(default_factory=list)
    catalog: list[Outgoing] = field(default_factory=list)
    dead_letters: Sequence[DeadLetter] = ()
    fired: list[tuple[str, int]] = field(default_factory=list)
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
