"""The command `export`: everything held about a person, read and never touched; no worker is disturbed by it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiokafka import TopicPartition

from decisioning import disclosure, events, messages
from decisioning import profile as profiles
from decisioning.localtime import iso
from decisioning.partitioner import partition_of
from streams import changelog
from streams.changelog import Image
from streams.erasing import Say, checked_id, connected
from streams.failure import NO, Failure
from streams.kafka import Cluster, KafkaLog
from streams.seams import ConflictError, UnavailableError, UnknownOutcomeError
from streams.store import RedisStore, Scripts, connect

if TYPE_CHECKING:
    from streams.settings import Settings

READINGS: Final = 20  # of a view that moves on under us
SAID_EVERY_S: Final = 5.0
MAX_HOPS: Final = 100  # from an id to whom it was merged into

Matches = Callable[[Sequence[Any]], Iterable[Any]]


def export_person(user: str, settings: Settings, say: Say) -> int:
    """Print everything held about a person as JSON.

    Parameters
    ----------
    user
        Any of the person's ids.
    say
        Takes lines about the progress.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    Failure
        Nothing is held, or Kafka does not answer.
    """
    found = asyncio.run(_export(checked_id(user), settings, say))
    if not found["state"] and not any(found["records"].values()):
        raise Failure(f"nothing is held about {user!r}; check the id", NO)
    sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return 0


async def _export(user: str, settings: Settings, say: Say) -> dict[str, Any]:
    now_ms = time.time_ns() // 1_000_000
    async with connected(settings) as (cluster, there):
        state = _State(settings, cluster, there[settings.topic("events")], say)
        try:
            person, held = await state.of(user)
        finally:
            await state.close()
        ids = [user, *(one for one in held if one != user)]
        records = await _Topics(settings, cluster, there, say).about(ids)
    return {
        "schema": 1,
        "asked_for": user,
        "person": person,
        "ids": ids,
        "exported_at": iso(now_ms),
        "state": {one: disclosure.of_person(image.row, image.profile, now_ms) for one, image in held.items()},
        "records": records,
    }


class _State:
    """People's state, from Redis where that is whole and not behind, else from the changelog."""

    def __init__(self, settings: Settings, cluster: Cluster, partitions: int, say: Say) -> None:
        self._cluster = cluster
        self._partitions = partitions
        self._say = say
        self._client = connect(settings.redis)
        self._scripts = Scripts(self._client)
        self._namespace = settings.topic(settings.group)

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()

    async def of(self, user: str) -> tuple[str, dict[str, Image]]:
        """Who an id belongs to, and what is held under each id of theirs."""
        held: dict[str, Image] = {}
        person = user
        for _ in range(MAX_HOPS):
            held |= await self._images([person])
            goal = _profile(held, person).moved_to
            if goal is None or goal in held:
                break
            person = goal
        others = [one for one in _profile(held, person).aliases if one not in held]
        found = await self._images(others)
        ids = {*held, *found}
        # A device that was theirs and is somebody else's by now is left out.
        return person, held | {one: image for one, image in found.items() if _profile(found, one).moved_to in ids}

    async def _images(self, people: Sequence[str]) -> dict[str, Image]:
        images: dict[str, Image] = {}
        for number in sorted({partition_of(person, self._partitions) for person in people}):
            here = [person for person in people if partition_of(person, self._partitions) == number]
            found = await self._in_view(number, here)
            images |= await self._in_changelog(number, here) if found is None else found
        return images

    async def _in_view(self, number: int, people: Sequence[str]) -> dict[str, Image] | None:
        """What Redis says; None where it cannot be relied on."""
        store = RedisStore(self._scripts, self._namespace, number)
        try:
            committed = changelog.decode_position((await self._cluster.committed(number)).metadata)
        except UnknownOutcomeError:
            return None  # a broker that never had a group says so in this way
        for _ in range(READINGS):
            try:
                meta = await store.meta()
                if meta is None or meta.state or (committed is not None and meta.n < committed.n):
                    return None
                rows, kept = await store.read(meta.n, people)
            except UnavailableError:
                return None
            except ConflictError:
                continue  # a step was committed in between
            found = {
                person: Image(row, profile or b"", None)
                for person, row, profile in zip(people, rows, kept, strict=True)
                if row is not None
            }
            return _without_empty(found)
        return None

    async def _in_changelog(self, number: int, people: Sequence[str]) -> dict[str, Image]:
        self._say(f"Redis is not up to date for partition {number}; reading the changelog")
        log = KafkaLog(self._cluster, number)
        keys = {person.encode() for person in people}
        images: dict[str, Image] = {}
        async with aclosing(log.changelog(*await log.bounds())) as chunks:
            async for entries, _ in chunks:
                images |= changelog.latest(entry for entry in entries if entry.key in keys)
        return _without_empty(images)


def _without_empty(images: Mapping[str, Image]) -> dict[str, Image]:
    """Those that say anything: of somebody who was idle for too long there is nothing."""
    return {person: image for person, image in images.items() if not disclosure.is_empty(image.row, image.profile)}


def _profile(images: Mapping[str, Image], person: str) -> profiles.Profile:
    return profiles.decode(images[person].profile if person in images else None)


class _Topics:
    """Records about somebody, in every topic that may have any."""

    def __init__(self, settings: Settings, cluster: Cluster, there: Mapping[str, int], say: Say) -> None:
        self._settings = settings
        self._cluster = cluster
        self._there = there
        self._say = say

    async def about(self, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """All records about the person of these ids, by topic."""
        named, keys = set(ids), {one.encode() for one in ids}

        def keyed(records: Sequence[Any]) -> Iterable[Any]:
            return (record for record in records if record.key in keys)

        def told(records: Sequence[Any]) -> Iterable[Any]:
            return (record for record in records if not named.isdisjoint(_named(record.value)))

        def happened(records: Sequence[Any]) -> Iterable[Any]:
            decoded = events.decode(records, {})
            pairs = zip(decoded.events, decoded.records, strict=True)
            theirs = [record for event, record in pairs if event.person in named or event.previous_id in named]
            return theirs + [letter.record for letter in decoded.rejected if letter.record.key in keys]

        found = {
            "events": await self._matching("events", happened),
            "internal": await self._matching("internal", told),
            "dead-letters": await self._matching("dead-letters", keyed),
            "decisions": await self._matching("decisions", keyed),
            "decision-log": await self._matching("decision-log", keyed),
        }
        decided = {entry["value"]["decision_id"] for entry in found["decision-log"]}
        return found | {
            "examples": await self._matching(
                "examples", lambda records: (r for r in records if orjson.loads(r.value)["decision_id"] in decided)
            )
        }

    async def _matching(self, name: str, matches: Matches) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        seen, said_s = 0, time.monotonic()
        async for records in self._records(name):
            seen += len(records)
            found += [_record(record) for record in matches(records)]
            if time.monotonic() - said_s >= SAID_EVERY_S:
                said_s = time.monotonic()
                self._say(f"reading {self._settings.topic(name)}: {seen} records")
        return found

    async def _records(self, name: str) -> AsyncIterator[list[Any]]:
        topic = self._settings.topic(name)
        places = [TopicPartition(topic, number) for number in range(self._there.get(topic, 0))]
        if not places:
            return
        firsts = await self._cluster.first_offsets(places)
        ends = await self._cluster.stable_offsets(places)
        for place in (one for one in places if firsts[one] < ends[one]):
            async with aclosing(self._cluster.records(place, firsts[place], ends[place])) as chunks:
                async for records, _ in chunks:
                    yield records


def _named(value: bytes | None) -> set[str]:
    """Whom a message between partitions is about."""
    message = messages.decode(value)
    return set() if message is None else {message.person, message.into, message.source} - {""}


def _record(record: Any) -> dict[str, Any]:
    return {
        "partition": record.partition,
        "offset": record.offset,
        "at": iso(record.timestamp),
        "value": disclosure.of_record(record.value),
    }
