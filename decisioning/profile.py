"""What is remembered of one person beside the feature row: who, where, consent, timers, sends.

A profile is a small binary value. The step decodes it, changes its own copy, and encodes it again; the bytes it was
given never change. Every list in it has a bound, named here.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Any

import msgspec

VERSION = 1
MAX_TRAITS = 128
MAX_ALIASES = 64
MAX_ALIASES_BYTES = 65_536  # an id has up to 2 KB
MAX_PENDING = 200  # timers of one person; a trigger beyond it is suppressed and logged
MAX_CANDIDATES = 8  # later trigger events remembered beside a timer
MAX_RECENT = 64  # cancel and goal events remembered for triggers that are read after them
MAX_RECENT_BYTES = 65_536
MAX_SENDS = 32
MAX_ENGAGED = 64
MAX_RESERVATIONS = 256
MAX_DAYS = 30
MAX_CONTENTS_BYTES = 32_768  # one trigger's body; a larger one is trimmed to its short scalars
MAX_TIMERS_BYTES = 262_144  # of all timers of one person, so that a post-image always fits into a record
MAX_TRAITS_BYTES = 131_072
MAX_TRAIT_BYTES = 4_096
MAX_TRAIT_NAME = 128  # characters

_CONTENTS_BYTES = 256  # of a trigger beside its body and id: names and times

CANCEL, GOAL = "cancel", "goal"
LEFT_ALL = "unsubscribed"  # the trait by which a person refuses everything: there is always room for it
DAILY = ("orders", "revenue", "sends", "opens", "clicks")

_Ms = Annotated[int, msgspec.Meta(ge=0, le=250_000_000_000_000)]  # years 1970 to 9892: every calendar can do with it
_Counts = Annotated[list[float], msgspec.Meta(min_length=len(DAILY), max_length=len(DAILY))]


class CorruptProfile(ValueError):  # noqa: N818 - says what is wrong
    """The bytes are no profile of a version this code knows."""


class Happened(msgspec.Struct, array_like=True, frozen=True):
    """An event that may cancel, or reach the goal of, a trigger that is still to be read.

    `pers` is its value at each path by which some campaign tells timers apart; empty: it concerns all of them.
    """

    event: str
    at_ms: _Ms
    message_id: str
    pers: dict[str, str] = {}


class Mark(msgspec.Struct, array_like=True, frozen=True):
    """A cancel or goal event that concerns one timer."""

    kind: str
    at_ms: _Ms
    message_id: str


class Contents(msgspec.Struct, array_like=True, frozen=True, dict=True):  # `dict` holds the cached property
    """A trigger event: when, which, and its whole body as JSON for rules and texts."""

    at_ms: _Ms
    message_id: str
    event: str
    body: bytes

    @cached_property
    def size(self) -> int:
        """About what it takes in bytes, encoded; never less."""
        return len(self.body) + utf8_bytes(self.message_id) + _CONTENTS_BYTES


class Chosen(msgspec.Struct, array_like=True, frozen=True):
    """The hour that was chosen for a decision, from what, and all that repeats the choice."""

    arm: str
    at_ms: _Ms  # of the choice
    base: Annotated[int, msgspec.Meta(ge=0, lt=168)]  # hour of the local week in which `now` lay
    arms: dict[str, float]  # eligible arm -> probability
    number: float  # what decided it, in [0, 1)
    shares: dict[str, float] = {}  # of the person's own habit, by arm
    version: int | None = None  # of the model that made the probabilities; None: none did
    rule: dict[str, Any] = {}  # what made them of it


class Pending(msgspec.Struct, array_like=True):
    """A timer that has not been decided.

    `first` names the decision; `latest` is what rules and texts see; `moved_ms` is the latest trigger or restart.
    """

    campaign: str
    per: str
    person: str  # id at trigger time; part of the decision id
    first: Contents
    latest: Contents
    moved_ms: _Ms
    due_ms: _Ms
    fire_ms: _Ms
    deferred: list[str] = []  # reason codes of deferrals so far
    candidates: list[Contents] = []
    marks: list[Mark] = []  # cancel and goal events at or after the trigger, not yet in effect
    chosen: Chosen | None = None  # the hour to send at; None: not chosen yet


class Send(msgspec.Struct, array_like=True, frozen=True):
    """A decision to send, or one not to (`channel` empty: held out, or not worth it), waiting for what happens next.

    `choices` are (arm, propensity) by choice and `context` the named vector they were made from: what a later outcome
    needs to become a correction of the examples posted with the decision. `cost` is what the channel's example began
    with, `reward` what all of them were corrected by since: what an erasure has to take back.
    """

    decision_id: str
    campaign: str
    channel: str
    at_ms: _Ms
    choices: dict[str, tuple[str, float]]
    context: dict[str, float]
    rewarded: bool = False  # with its goal, once
    credited: list[str] = []  # other events that were, once each
    reward: float | None = None
    cost: float | None = None
    slot: dict[str, float] = {}  # what was known of the hour it was sent at


class Reservation(msgspec.Struct, array_like=True, frozen=True):
    """Room taken in the frequency caps."""

    decision_id: str
    channel: str
    at_ms: _Ms


class Trait(msgspec.Struct, array_like=True, frozen=True):
    """A trait and the event time that set it; the latest wins, whatever the order of arrival."""

    at_ms: _Ms
    value: Any


class Profile(msgspec.Struct, array_like=True, omit_defaults=True):
    """Everything remembered of one person; see the module's docstring for its life."""

    moved_to: str | None = None  # this id's later events belong to that person
    erased_ms: _Ms | None = None  # events up to then are as if they had never been
    traits: dict[str, Trait] = {}
    consent: dict[str, Trait] = {}
    suppressed: dict[str, dict[str, _Ms]] = {}  # channel -> reason code -> since
    context_zone: Trait | None = None
    aliases: list[str] = []
    pending: list[Pending] = []
    recent: list[Happened] = []
    sends: list[Send] = []
    reservations: list[Reservation] = []
    days: dict[int, _Counts] = {}  # UTC day -> one number for each of DAILY
    totals: _Counts = msgspec.field(default_factory=lambda: [0.0] * len(DAILY))
    device: Trait | None = None  # family of the device the latest event came from
    engaged: list[int] = []  # minutes since the epoch of the latest human opens and clicks, in order

    def trait(self, name: str) -> Any:
        """Value of a trait, None where it was never set."""
        found = self.traits.get(name)
        return None if found is None else found.value

    def next_fire_ms(self) -> int | None:
        """When the earliest timer fires."""
        return min((p.fire_ms for p in self.pending), default=None)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Profile)
_EMPTY = _encoder.encode(Profile())


def encode(profile: Profile) -> bytes:
    """Bytes of a profile: a version byte, then MessagePack. A profile that says nothing is empty bytes."""
    packed = _encoder.encode(profile)
    return b"" if packed == _EMPTY else bytes([VERSION]) + packed


def decode(data: bytes | None) -> Profile:
    """The profile in `data`; no bytes are the empty profile.

    Raises
    ------
    CorruptProfile
        If the version is unknown or the bytes are damaged.

    Examples
    --------
    >>> decode(encode(Profile(erased_ms=5))).erased_ms == 5
    True
    """
    if not data:
        return Profile()
    if data[0] != VERSION:
        raise CorruptProfile(f"profile version {data[0]}; this release reads version {VERSION}: upgrade first")
    try:
        return _decoder.decode(data[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptProfile(f"profile of {len(data)} bytes does not decode: {type(error).__name__}") from None


def utf8_bytes(text: str) -> int:
    """Length of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def count_day(profile: Profile, at_ms: int, name: str, amount: float) -> None:
    """Add to a daily count and its total; days older than `MAX_DAYS` before the newest are dropped."""
    column = DAILY.index(name)
    profile.totals[column] += amount
    day = at_ms // 86_400_000
    newest = max(profile.days, default=day)
    if day <= newest - MAX_DAYS:
        return
    profile.days.setdefault(day, [0.0] * len(DAILY))[column] += amount
    for old in [d for d in profile.days if d <= max(newest, day) - MAX_DAYS]:
        del profile.days[old]


def counts(profile: Profile, now_ms: int) -> dict[str, float | int]:
    """`orders_1d` … `clicks_total`: the current UTC day and the n - 1 before it, and since ever."""
    today = now_ms // 86_400_000
    found: dict[str, float | int] = {}
    for column, name in enumerate(DAILY):
        for days in (1, 7, 30):
            total = sum(v[column] for d, v in profile.days.items() if today - days < d <= today)
            found[f"{name}_{days}d"] = total if name == "revenue" else int(total)
        total = profile.totals[column]
        found[f"{name}_total"] = total if name == "revenue" else int(total)
    return found


def remember_mark(marks: list[Mark], mark: Mark) -> None:
    """Keep the earliest mark of each kind: it is the first to come into effect, and one is enough."""
    marks.append(mark)
    marks.sort(key=lambda m: (m.kind, m.at_ms, m.message_id))
    marks[:] = [m for m, before in zip(marks, [None, *marks], strict=False) if before is None or m.kind != before.kind]


def remember(profile: Profile, happened: Happened) -> None:
    """Keep an event among the latest `MAX_RECENT` by event time, in `MAX_RECENT_BYTES` at most."""
    profile.recent.append(happened)
    while len(profile.recent) > MAX_RECENT or len(_encoder.encode(profile.recent)) > MAX_RECENT_BYTES:
        profile.recent.sort(key=lambda h: h.at_ms)
        del profile.recent[0]


def bounded_sends(sends: list[Send]) -> list[Send]:
    """At most `MAX_SENDS` of sends in order of time; the latest of each campaign stays, for its cooldown."""
    excess = len(sends) - MAX_SENDS
    if excess <= 0:
        return sends
    latest = {send.campaign: send.decision_id for send in sends if send.channel}
    earlier = [send for send in sends if latest.get(send.campaign) != send.decision_id][:excess]
    dropped = {send.decision_id for send in earlier}
    return [send for send in sends if send.decision_id not in dropped][-MAX_SENDS:]


def remember_engaged(profile: Profile, minutes: Iterable[int]) -> None:
    """Add times of opens and clicks; the latest stay."""
    profile.engaged = sorted([*profile.engaged, *minutes])[-MAX_ENGAGED:]


def remember_aliases(profile: Profile, ids: Iterable[str]) -> None:
    """Add a person's other ids, each once; the oldest ones go where there is no room."""
    profile.aliases = list(dict.fromkeys([*profile.aliases, *ids]))[-MAX_ALIASES:]
    while len(_encoder.encode(profile.aliases)) > MAX_ALIASES_BYTES:
        del profile.aliases[0]


def take_traits(profile: Profile, traits: Iterable[tuple[str, Trait]]) -> int:
    """Set traits, each unless a later event has set it.

    Returns
    -------
    int
        How many found no room: too large, or more than a person may have.
    """
    mine = profile.traits
    room = MAX_TRAITS_BYTES - sum(map(_trait_bytes, mine.values()))
    dropped = 0
    for name, trait in traits:
        known = mine.get(name)
        if known is not None and known.at_ms > trait.at_ms:
            continue
        size = _trait_bytes(trait)
        fits = size <= min(room, MAX_TRAIT_BYTES) and len(name) <= MAX_TRAIT_NAME
        if (fits and (known is not None or len(mine) < MAX_TRAITS)) or (name == LEFT_ALL and trait.value is True):
            mine[name] = trait
            room -= size
        else:
            dropped += 1
    return dropped


def _trait_bytes(trait: Trait) -> int:
    return len(_encoder.encode(trait.value))
