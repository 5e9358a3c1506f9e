"""The commands `models …`: what was learned and which version of it is used, and the record of who said so.

A pin keeps a copy of its snapshot in `models`, which is compacted: it holds after `model-history` has forgotten the
version, and workers need to follow one topic only.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import typer

from bandits.propensity_fold import KIND
from bandits.snapshot import SnapshotError, decode
from decisioning import broadcast
from decisioning.durations import spell
from decisioning.effects import Outgoing, Pin
from decisioning.learning import Learned
from decisioning.scoring import Scored
from streams.control import Session, carried_out, checked_words, now, record_id
from streams.failure import NO, WRONG_USE, Failure
from streams.snapshots import INTERNAL, PINNED, kept_versions, latest_of
from streams.tables import settings_told

if TYPE_CHECKING:
    from bandits.gate import Verdict
    from streams.kafka import Cluster
    from streams.settings import Settings

TOPICS: Final = ("control", "models", "model-history", "decision-log")
NAMED_VERSIONS: Final = 5  # in an error


Judge = Callable[["Cluster", str, int, bytes], Awaitable["Verdict"]]
"""(Kafka, model, version, snapshot) -> whether it may be used."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which version of a model somebody wants used, why, and what they call it.

    Attributes
    ----------
    action
        `pin`, `unpin`, `rollback` or `promote`.
    version
        None: with `unpin` the latest, with `rollback` the last one that is at least `age_ms` old.
    """

    action: str
    model: str
    version: int | None
    by: str
    reason: str
    age_ms: int = 0


def use(settings: Settings, wanted: Wanted, judge: Judge | None = None) -> None:
    """Have all workers use a version of a model, and say so; where it is so already, only say so.

    Parameters
    ----------
    judge
        Says whether that version may be used; None: nobody has to be asked.

    Raises
    ------
    Failure
        There is no such model or version, it is judged not to be better, or Kafka does not answer.
    """
    checked_words(by=wanted.by, reason=wanted.reason)
    if "/" not in wanted.model.strip("/") or not wanted.model.isprintable():
        raise Failure(
            f"{wanted.model!r} is no model; its name is <campaign>/<choice>, see: decisioning models list", WRONG_USE
        )
    typer.echo(carried_out(settings, TOPICS, lambda session: _used(session, wanted, judge)))


async def _used(session: Session, wanted: Wanted, judge: Judge | None) -> str:
    model = wanted.model
    before = (await settings_told(session.cluster)).pins.get(model)
    if wanted.action == "unpin":
        if before is None:
            return f"{model}: follows the latest version already"
        await _say(session, wanted, None, b"")
        return f"{model}: follows the latest version"
    version, value = await _found(session, wanted)
    if before is not None and before.version == version:
        return f"{model}: version {version} already, since {before.at}, by {before.by}"
    _check(model, version, value)
    why = ""
    if judge is not None:
        verdict = await judge(session.cluster, model, version, value)
        if not verdict.allowed:
            raise Failure(
                f"version {version} of {model} is not promoted: {verdict.why}; --force and --reason override it"
            )
        why = f"; {verdict.why}"
        wanted = replace(wanted, reason=wanted.reason or verdict.why)
    await _say(session, wanted, version, value)
    return f"{model}: version {version}{why}"


async def _found(session: Session, wanted: Wanted) -> tuple[int, bytes]:
    """The version and its snapshot."""
    before_ms = time.time_ns() // 1_000_000 - wanted.age_ms
    found: tuple[int, bytes] | None = None
    kept: list[int] = []
    async with aclosing(kept_versions(session.cluster, wanted.model)) as versions:
        async for one in versions:
            kept.append(one.version)
            if one.version == wanted.version or (wanted.version is None and one.at_ms <= before_ms):
                found = one.version, one.value
    if found is not None:
        return found
    if not kept:
        models = [name for name in await latest_of(session.cluster) if not name.startswith(INTERNAL)]
        known = f"known are {', '.join(sorted(models))}" if models else "nothing was learned yet"
        raise Failure(f"no version of {wanted.model} is kept; {known}", NO)
    some = ", ".join(map(str, kept[-NAMED_VERSIONS:]))
    what = f"version {wanted.version}" if wanted.version is not None else f"version older than {spell(wanted.age_ms)}"
    raise Failure(f"no {what} of {wanted.model} is kept; the last of {len(kept)} that are: {some}", NO)


def _check(model: str, version: int, value: bytes) -> None:
    """See that what is to be used can be."""
    try:
        snapshot = decode(value)
        if snapshot.kind == KIND:
            Scored.of(snapshot)
        else:
            Learned.of(value)
    except SnapshotError as error:
        raise Failure(f"version {version} of {model} cannot be read: {error}; choose another one", NO) from None


async def _say(session: Session, wanted: Wanted, version: int | None, value: bytes) -> None:
    said = Pin(version=version, at=now(), by=wanted.by, reason=wanted.reason)
    number = record_id(wanted.action, wanted.model, version, said.at, said.by)
    campaign = wanted.model.rpartition("/")[0]
    log = broadcast.audited(number, campaign, wanted.action, said, model=wanted.model, version=version)
    await session.publish(
        [
            ("models", Outgoing(f"{PINNED}{wanted.model}".encode(), value)),
            ("control", broadcast.pin_record(wanted.model, said)),
            ("decision-log", log),
        ]
    )
