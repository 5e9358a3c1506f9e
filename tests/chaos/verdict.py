"""What should have come out, by what is in `events`; what did; and what is wrong with it."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson
from aiokafka import ConsumerRecord

from decisioning.choice import held_out
from decisioning.config import Holdout
from decisioning.explain import explain
from decisioning.localtime import iso
from features.codec import decode
from streams import changelog
from streams.seams import Entry
from streams.store import RedisStore, Scripts, connect
from tests.chaos.outside import Seen, read, seen
from tests.chaos.people import DELAY_S, HOLDOUT, PARTITIONS, Story
from tests.chaos.stage import Stage


@dataclass(frozen=True)
class Finding:
    """Something lost, doubled or wrong, and when it should have come out (seconds since the epoch; None: any time)."""

    kind: str
    text: str
    due_s: float | None = None


@dataclass
class Topics:
    """Everything that was committed."""

    events: list[ConsumerRecord]
    decisions: list[ConsumerRecord]
    log: list[ConsumerRecord]
    letters: list[ConsumerRecord]
    changelog: list[ConsumerRecord]


@dataclass
class Verdict:
    """How a run ended.

    Attributes
    ----------
    topics, stories, acked
        What it was judged by.
    """

    topics: Topics
    stories: dict[str, Story]
    acked: dict[int, set[int]]
    findings: list[Finding]

    @cached_property
    def decisions(self) -> list[Seen]:
        """All that was sent."""
        return [seen(record) for record in self.topics.decisions]

    def count(self, kind: str) -> int:
        """How many of a kind."""
        return sum(finding.kind == kind for finding in self.findings)


def judge(stage: Stage) -> Verdict:
    """Read all topics and Redis, and compare."""

    async def fetched() -> Topics:
        names = ("events", "decisions", "decision-log", "dead-letters", "changelog")
        return Topics(*[await read(stage.settings, name) for name in names])

    topics, stories, acked = stage.loop.run(fetched()), stage.population.stories, stage.traffic.acked
    findings = compare(topics, stories, acked) + asyncio.run(_view(stage, topics.changelog))
    return Verdict(topics, stories, acked, findings)


def compare(got: Topics, told: dict[str, Story], acked: dict[int, set[int]]) -> list[Finding]:
    """What is lost, doubled or wrong in the topics.

    Parameters
    ----------
    told
        Stories by their trigger's message id; only what reached `events` counts.
    acked
        Partition -> offsets of `events` that the broker has confirmed.
    """
    events, poison = _parsed(got.events)
    arrived: dict[str, int] = {}
    for record, event in events:
        arrived.setdefault(event["messageId"], record.timestamp)
    stories = {trigger: story for trigger, story in told.items() if trigger in arrived}
    return [
        *_kept(acked, got.events),
        *_stories(stories, arrived, got),
        *_letters(poison, got.letters),
        *_counts(events, got.changelog),
    ]


def _parsed(records: list[ConsumerRecord]) -> tuple[list[tuple[ConsumerRecord, dict[str, Any]]], list[ConsumerRecord]]:
    """Events, and what is none: ours have ids of their own."""
    events, poison = [], []
    for record in records:
        if (record.value or b"").startswith(b'{"messageId":"m'):
            events.append((record, orjson.loads(record.value)))
        else:
            poison.append(record)
    return events, poison


def _kept(acked: dict[int, set[int]], records: list[ConsumerRecord]) -> Iterator[Finding]:
    """The broker still has what it said it had; else nothing of the rest means anything."""
    there: dict[int, set[int]] = defaultdict(set)
    for record in records:
        there[record.partition].add(record.offset)
    for partition, offsets in acked.items():
        if gone := len(offsets - there[partition]):
            yield Finding("wrong", f"the broker lost {gone} acknowledged events of partition {partition}")


def _stories(stories: dict[str, Story], arrived: dict[str, int], got: Topics) -> Iterator[Finding]:
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in got.log:
        line = orjson.loads(record.value)
        lines[line["trigger"]["message_id"]].append(line)
    sent: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in got.decisions:
        decision = orjson.loads(record.value)
        sent[decision["decision_id"]].append(decision)
    for trigger, story in stories.items():
        found = lines.pop(trigger, [])
        due_s = (arrived[trigger] / 1e3) + (DELAY_S if story.campaign == "cart" else 0.0)
        who = f"{story} arrived {iso(arrived[trigger])}"
        if len(found) != 1:
            yield Finding("doubled" if found else "lost", f"{len(found)} lines in the log: {who}", due_s)
            continue
        line = found[0]
        published = sent.pop(line["decision_id"], [])
        expected = int(line["action"] == "send")
        if len(published) != expected:
            kind = "doubled" if len(published) > expected else "lost"
            yield Finding(kind, f"{len(published)} decisions published, {expected} in the log: {who}", due_s)
            continue
        for problem in (*_wrong_line(story, arrived, line), *_wrong_decision(line, published)):
            yield Finding("wrong", f"{problem}: {who}: {line}", due_s)
    yield from (Finding("wrong", f"no trigger, yet in the log: {found}") for found in lines.values())
    yield from (Finding("doubled", f"no line in the log, yet published: {found}") for found in sent.values())


def _wrong_line(story: Story, arrived: dict[str, int], line: dict[str, Any]) -> Iterator[str]:
    outcomes, dues = _expected(story, arrived)
    outcome = line["reasons"][0] if line["action"] != "send" else "send"
    by_channel = {reason for reasons in line["channel_reasons"].values() for reason in reasons}
    if outcome not in outcomes and outcomes.isdisjoint(by_channel):
        yield f"{outcome} {sorted(by_channel)}, expected {sorted(outcomes)}"
    if outcome == "cancelled" and line["cancelled_by"] != story.cancel:
        yield f"cancelled by {line['cancelled_by']}"
    if outcome != "cancelled" and not line["due_at"] == line["fire_at"] in {iso(due) for due in dues}:
        yield f"due {line['due_at']}, fired {line['fire_at']}, expected {[iso(due) for due in dues]}"
    if outcome == "send" and line["decided_at"] < line["due_at"]:
        yield f"decided {line['decided_at']}, before it was due"
    if line["user_id"] not in {story.person, story.visitor}:
        yield f"decided on {line['user_id']}"
    yield from explain(line).differences


def _expected(story: Story, arrived: dict[str, int]) -> tuple[set[str], set[int]]:
    """Possible outcomes and due times; what was appended before a timer was due counts, what came after may."""
    delay_ms = int(DELAY_S * 1e3) if story.campaign == "cart" else 0
    due_ms = arrived[story.trigger] + delay_ms
    outcomes, dues = {_by_itself(story)}, {due_ms}
    restart_ms, cancel_ms = arrived.get(story.restart), arrived.get(story.cancel)
    if restart_ms is not None:
        moved_ms = max(restart_ms, arrived[story.trigger]) + delay_ms
        dues = {moved_ms} if restart_ms < due_ms else {due_ms, moved_ms}
    if cancel_ms is not None:
        outcomes = {"cancelled"} if cancel_ms < due_ms else {"cancelled", *outcomes}
    if story.visitor:  # whether they are known when it is due depends on a message from another partition
        outcomes |= {"no_address"}
        outcomes |= {"holdout", "send"} if _held_out(story, story.visitor) else set()
    return outcomes, dues


def _by_itself(story: Story) -> str:
    match story.kind:
        case "refused":
            return "no_consent"
        case "unaddressed":
            return "no_address"
    return "holdout" if _held_out(story, story.person) else "send"


def _held_out(story: Story, person: str) -> bool:
    return story.campaign == "cart" and held_out(Holdout(share=HOLDOUT), "cart", person)


def _wrong_decision(line: dict[str, Any], published: list[dict[str, Any]]) -> Iterator[str]:
    for decision in published:
        person = line["user_id"]
        texts = {
            "plain": "Still thinking about {}?",
            "offer": "{} is waiting",
            "hello": f"Hello {person}",
        }
        boots = f"boots {person[1:]}"
        expected = {
            "address": f"{person}@example.com",
            "content": {"subject": texts[line["variants"]["subject"]].format(boots), "blocks": {}},
            **{name: line[name] for name in ("variants", "channel", "user_id", "campaign", "fire_at", "decided_at")},
        }
        for name, value in expected.items():
            if decision[name] != value:
                yield f"{name} is {decision[name]}, expected {value}"


def _letters(poison: list[ConsumerRecord], letters: list[ConsumerRecord]) -> Iterator[Finding]:
    """One dead letter for each record that is no event, with its bytes."""
    wanted = {(record.partition, record.offset): record for record in poison}
    times: Counter[tuple[int, int]] = Counter()
    for letter in letters:
        said = {name.rpartition(".")[2]: value.decode() for name, value in letter.headers}
        place = int(said["partition"]), int(said["offset"])
        times[place] += 1
        if place not in wanted or (letter.value or b"") != (wanted[place].value or b""):
            yield Finding("wrong", f"dead letter of {place}: {str(letter.value)[:100]}")
    for place, record in wanted.items():
        if times[place] != 1:
            kind = "doubled" if times[place] else "lost"
            text = f"{times[place]} dead letters of {place}: {str(record.value)[:100]}"
            yield Finding(kind, text, record.timestamp / 1e3)


def _images(records: Iterable[ConsumerRecord], partition: int) -> dict[str, changelog.Image]:
    entries = [Entry(one.offset, one.key, one.value) for one in records if one.partition == partition]
    return dict(changelog.latest(entries))


def _counts(events: list[tuple[ConsumerRecord, dict[str, Any]]], records: list[ConsumerRecord]) -> Iterator[Finding]:
    """Everybody's row has taken in each message once, whoever has not become somebody else."""
    sent: dict[str, set[str]] = defaultdict(set)
    merged: set[str] = set()
    for _, event in events:
        sent[event.get("userId") or event["anonymousId"]].add(event["messageId"])
        if "anonymousId" in event:
            merged |= {event.get("userId", ""), event["anonymousId"]}
    images = {person: image for number in range(PARTITIONS) for person, image in _images(records, number).items()}
    for person, ids in sent.items():
        if person in merged:
            continue
        count = int(decode(images[person].row)["count"]) if person in images else 0
        if count != len(ids):
            yield Finding("wrong", f"{person}: {count} messages taken in, {len(ids)} sent")


async def _view(stage: Stage, records: list[ConsumerRecord]) -> list[Finding]:
    """Redis has what the changelog says, and nothing else."""
    client = connect(stage.store.url)
    findings = []
    try:
        for number in range(PARTITIONS):
            store = RedisStore(Scripts(client), stage.settings.topic(stage.settings.group), number)
            _, rows_key, profiles_key, due_key = store.keys
            rows = {key.decode(): value for key, value in (await _hash(client, rows_key)).items()}
            profiles = {key.decode(): value for key, value in (await _hash(client, profiles_key)).items()}
            due = await client.zrange(due_key, 0, -1, withscores=True)
            images = _images(records, number)
            people = {p for p in images.keys() | rows.keys() if p not in images or rows.get(p) != images[p].row}
            people |= {p for p in images.keys() | profiles.keys() if profiles.get(p, b"") != _profile(images, p)}
            if people:
                some = sorted(people)[:10]
                findings.append(Finding("wrong", f"partition {number}: {len(people)} differ in the view, {some}"))
            if due:
                findings.append(Finding("lost", f"partition {number}: timers left, {due[:10]}"))
    finally:
        await client.aclose()
    return findings


def _profile(images: dict[str, changelog.Image], person: str) -> bytes:
    return images[person].profile if person in images else b""


async def _hash(client: Any, key: str) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = await client.hgetall(key)
    return found
