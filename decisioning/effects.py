"""What the step reads and what it wants done: plain data between the pure engine and the shell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
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


class Stock(msgspec.Struct, frozen=True):
    """Whether a product can be had, as `catalog` says it, and the event time since when (RFC 3339)."""

    product_id: str
    in_stock: bool
    at: str


class Switch(msgspec.Struct, frozen=True):
    """Whether a campaign is paused, as `control` says it: since when (RFC 3339), by whom, and why."""

    paused: bool
    at: str
    by: str = ""
    reason: str = ""


class Pin(msgspec.Struct, frozen=True):
    """Which version of a model all are to use (None: the latest), as `control` says it: since when, by whom, why."""

    version: int | None
    at: str
    by: str = ""
    reason: str = ""


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
        Product id -> what was said of its stock last, where that was ever said.
    paused
        Campaign -> who paused it: its timers are held.
    """

    partition: int
    partitions: int
    rows: RowTable
    profiles: Mapping[str, bytes]
    stock: Mapping[str, Stock] = field(default_factory=dict)
    paused: Mapping[str, Switch] = field(default_factory=dict)


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
    parked
        Person -> earliest time a timer of theirs fires that is not held, None for none; only of those whose earliest
        timer is held because its campaign is paused.
    fired
        (campaign, fire_at in milliseconds) of each record of `decisions`, in the same order.
    counts
        (metric name without its prefix, label values…) -> increment.
    """

    people: list[str] = field(default_factory=list)
    rows: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, ROW))
    profiles: dict[str, bytes] = field(default_factory=dict)
    due: dict[str, int | None] = field(default_factory=dict)
    parked: dict[str, int | None] = field(default_factory=dict)
    decisions: list[Outgoing] = field(default_factory=list)
    log: list[Outgoing] = field(default_factory=list)
    examples: list[Outgoing] = field(default_factory=list)
    internal: list[Outgoing] = field(default_factory=list)
    catalog: list[Outgoing] = field(default_factory=list)
    dead_letters: Sequence[DeadLetter] = ()
    fired: list[tuple[str, int]] = field(default_factory=list)
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
