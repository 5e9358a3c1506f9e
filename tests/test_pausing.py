"""A campaign that is paused: nothing goes out, nothing is lost, nothing spins; and stock that all workers know."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from decisioning import broadcast
from decisioning.config import Config
from decisioning.effects import Switch
from decisioning.engine import Engine
from streams.changelog import MARKER_KEY, decode_marker
from streams.metrics import Metrics
from streams.partition import DUE_AT_ONCE, Partition, Place
from streams.seams import Entry
from streams.tables import Tables
from tests.play import CAMPAIGN, config, identify, ms, track
from tests.shell_world import FakeClock, FakeLog, FakeStore, Faults, Kafka, Line, Redis


class Shop:
    """One partition of a worker, what it is told, and what it publishes."""

    def __init__(self, setup: Config | None = None) -> None:
        self.setup = setup or config()
        self.kafka, self.redis = Kafka(), Redis()
        self.clock = FakeClock(ms("09:00"))
        self.tables = Tables()
        self.read = 0
        self.owner = self.successor()

    def successor(self) -> Partition:
        log, store = FakeLog(self.kafka, Faults()), FakeStore(self.redis, Faults())
        place = Place(0, 1, 1000, {}, self.tables)
        return Partition(place, Engine(self.setup), log, store, self.clock, Metrics())

    def control(self, campaign: str, *, paused: bool) -> None:
        record = broadcast.switch_record(campaign, Switch(paused=paused, at="2026-03-02T10:00:00.000Z", by="ann"))
        self._told("control", record.key, record.value)

    def _told(self, name: str, key: bytes | None, value: bytes) -> None:
        offset = self.tables.offsets[name]
        self.tables.take(name, [Entry(offset, key or b"", value)], offset + 1)

    def tell_stock(self) -> None:
        """Everything that was published to `catalog` reaches the workers."""
        for name, record in self.kafka.published:
            if name == "catalog":
                self._told("catalog", record.key, record.value)

    async def happen(self, clock: str, *events: dict[str, Any]) -> None:
        """Events at a time, and every timer that may fire until then."""
        self.clock.ms = ms(clock)
        lines = [
            Line("events", 0, self.read + i, event["userId"].encode(), orjson.dumps(event), self.clock.ms)
            for i, event in enumerate(events)
        ]
        self.read += len(lines)
        offsets = {"events": self.read, "internal": 0}
        if lines:
            await self.owner.step(lines, [], offsets)
        while (due_ms := self.owner.next_due_ms()) is not None and due_ms <= self.clock.ms:
            await self.owner.step([], [], offsets, self.clock.ms)

    def log(self) -> list[tuple[str, str, str]]:
        """(person, action or first reason, time) of each decision."""
        lines = [orjson.loads(record.value) for name, record in self.kafka.published if name == "decision-log"]
        return [
            (line["user_id"], (line["reasons"] or [line["action"]])[0], line["decided_at"][11:16]) for line in lines
        ]


def tell(scenario: Callable[[Shop], Awaitable[None]], setup: Config | None = None) -> Shop:
    """Run a story."""
    shops: list[Shop] = []

    async def go() -> None:
        shop = Shop(setup)
        shops.append(shop)
        await shop.owner.start()
        await shop.happen("09:00", identify("09:00", "i1"), identify("09:00", "i2", "u2"))
        await scenario(shop)

    asyncio.run(go())
    return shops[0]


def test_what_a_pause_holds_goes_when_it_is_resumed() -> None:
    """A timer due while its campaign is paused does not fire; resumed, it fires at once, and one due later in time."""

    async def story(shop: Shop) -> None:
        await shop.happen("10:00", track("10:00", "t1"))
        shop.control("cart", paused=True)
        await shop.happen("10:40", track("10:40", "t2", user="u2"))
        assert shop.log() == []
        shop.control("cart", paused=False)
        await shop.happen("10:50")
        await shop.happen("11:20")

    assert tell(story).log() == [("u1", "send", "10:50"), ("u2", "send", "11:20")]


def test_what_waits_for_a_resume_is_checked_again() -> None:
    """What came too late has expired, what was bought meanwhile is cancelled, what is sold out is not advertised."""
    setup = config(campaign={"expires_after": "1h", "requires_stock": "properties.product_id"})
    gone = track("10:40", "s", "Product Out of Stock", "product:p9", properties={"product_id": "p9"})

    async def story(shop: Shop) -> None:
        shop.control("cart", paused=True)
        await shop.happen("09:10", track("09:10", "t1"))
        await shop.happen("10:00", track("10:00", "t2", user="u2", properties={"product_id": "p9"}))
        await shop.happen("10:05", identify("10:05", "i3", "u3"), track("10:05", "t3", user="u3"))
        await shop.happen("10:40", track("10:40", "b", "Order Completed", user="u3"), gone)
        shop.tell_stock()
        shop.control("cart", paused=False)
        await shop.happen("10:50")

    outcomes = {person: outcome for person, outcome, _ in tell(story, setup).log()}
    assert outcomes == {"u1": "expired", "u2": "out_of_stock", "u3": "cancelled"}


def test_a_paused_campaign_holds_up_no_other() -> None:
    """Another campaign's timer of the same person fires on time, whether it is due before or after what is held."""
    other = CAMPAIGN | {"id": "other", "trigger": {"event": "Other", "delay": "5m"}}
    setup = config(campaigns=[CAMPAIGN, other])

    async def story(shop: Shop) -> None:
        shop.control("cart", paused=True)
        await shop.happen("10:00", track("10:00", "t1"), track("10:00", "o1", "Other"))
        await shop.happen("10:10")
        await shop.happen("10:40", track("10:40", "o2", "Other"))
        await shop.happen("10:45")

    assert [time for _, _, time in tell(story, setup).log()] == ["10:10", "10:45"]


def test_held_timers_make_no_steps() -> None:
    """More than one step takes are looked at once, then nobody is due; nothing of them is written; a new owner too."""

    async def story(shop: Shop) -> None:
        people = [f"p{number}" for number in range(DUE_AT_ONCE + 10)]
        await shop.happen("10:00", *(track("10:00", f"t{person}", user=person) for person in people))
        shop.control("cart", paused=True)
        for _ in range(2):
            before, images = shop.owner.step_number, len(shop.kafka.changelog)
            await shop.happen("10:40")
            await shop.happen("10:50")
            assert shop.owner.step_number == before + 2
            written = [entry for entry in shop.kafka.changelog[images:] if entry is not None]
            assert {entry.key for entry in written} == {MARKER_KEY}
            shop.owner = shop.successor()
            await shop.owner.start()
        assert shop.log() == []
        shop.control("cart", paused=False)
        await shop.happen("11:00")
        assert len(shop.log()) == len(people)

    tell(story)


def test_a_resume_during_a_step_is_not_overlooked() -> None:
    """The campaign is resumed while the step that holds its timer is committed; the timer fires all the same."""

    async def story(shop: Shop) -> None:
        await shop.happen("10:00", track("10:00", "t1"))
        shop.control("cart", paused=True)
        shop.clock.ms = ms("10:40")
        step = asyncio.create_task(shop.owner.step([], [], shop.owner.offsets, shop.clock.ms))
        for _ in range(3):
            await asyncio.sleep(0)
        shop.control("cart", paused=False)
        assert not step.done()
        await step
        await shop.happen("10:41")
        assert shop.log() == [("u1", "send", "10:41")]

    tell(story)


def test_a_resume_while_people_are_loaded_counts_in_the_step() -> None:
    """The step that its marker describes: with the campaign running, everybody who is due then is decided in it."""

    async def story(shop: Shop) -> None:
        await shop.happen("10:00", track("10:00", "t1"))
        shop.control("cart", paused=True)
        await shop.happen("10:40")
        shop.clock.ms = ms("10:41")
        event = orjson.dumps(track("10:41", "x", "Page Seen", user="new"))
        lines, shop.read = [Line("events", 0, shop.read, b"new", event, shop.clock.ms)], shop.read + 1
        offsets = {"events": shop.read, "internal": 0}
        step = asyncio.create_task(shop.owner.step(lines, [], offsets, shop.clock.ms))
        await asyncio.sleep(0)
        shop.control("cart", paused=False)
        await step
        assert shop.log() == [("u1", "send", "10:41")]

    tell(story)


def test_timers_of_a_paused_campaign_that_is_gone_are_cancelled() -> None:
    """Removing a campaign ends its timers at once, paused or not."""

    async def story(shop: Shop) -> None:
        await shop.happen("10:00", track("10:00", "t1"))
        shop.control("cart", paused=True)
        shop.setup = config(campaign={"id": "other"})
        shop.owner = shop.successor()
        await shop.owner.start()
        await shop.happen("10:40")

    assert tell(story).log() == [("u1", "cancelled", "10:40")]


def test_a_decision_that_waits_for_the_morning_is_not_sent_for_what_sold_out_overnight() -> None:
    """Deferred by quiet hours in stock, out of stock when they end; restocked, it would go."""
    setup = config(quiet_hours={"from": "21:00", "to": "08:00"}, campaign={"requires_stock": "properties.product_id"})
    product: dict[str, Any] = {"user": "product:p1", "properties": {"product_id": "p1"}}

    async def story(shop: Shop) -> None:
        await shop.happen("22:00", track("22:00", "t1", properties={"product_id": "p1"}))
        await shop.happen("23:00", track("23:00", "s", "Product Out of Stock", **product))
        shop.tell_stock()
        assert shop.log() == []
        await shop.happen("+1d 08:00")

    assert tell(story, setup).log() == [("u1", "out_of_stock", "08:00")]


def test_the_marker_names_what_a_step_was_computed_with() -> None:
    """Each step says up to where catalog and control had been read, also where that changed while it was committed."""

    async def story(shop: Shop) -> None:
        shop.control("cart", paused=True)
        shop.tables.take("catalog", [], 7)
        step = asyncio.create_task(shop.owner.step([], [], shop.owner.offsets, ms("09:00")))
        await asyncio.sleep(0)
        shop.tables.take("catalog", [], 8)
        await step

    entries = [entry for entry in tell(story).kafka.changelog if entry is not None and entry.key == MARKER_KEY]
    assert decode_marker(entries[-1].value).versions == {"catalog": "7", "control": "1", "models": "0"}


def test_older_news_of_a_product_are_not_published() -> None:
    """Compaction keeps what was written last: an older restock read after the sell-out is left out, in a batch too."""
    gone = track("10:10", "s", "Product Out of Stock", "product:p1", properties={"product_id": "p1"})
    older = track("10:05", "r", "Product Restocked", "product:p1", properties={"product_id": "p1"})

    async def one_batch(shop: Shop) -> None:
        await shop.happen("10:11", gone, older)

    async def two_batches(shop: Shop) -> None:
        await shop.happen("10:11", gone)
        shop.tell_stock()
        await shop.happen("10:12", older)

    for story in (one_batch, two_batches):
        said = [orjson.loads(record.value) for name, record in tell(story).kafka.published if name == "catalog"]
        assert said == [{"product_id": "p1", "in_stock": False, "at": "2026-03-02T10:10:00.000Z"}]


def test_what_the_topics_say_that_nobody_understands_changes_nothing() -> None:
    """Damaged records are passed over; the latest stock by event time counts; a tombstone takes back what was said."""
    tables = Tables()
    gone = b'{"product_id":"p","in_stock":false,"at":"2026-03-02T10:10:00.000Z"}'
    older = b'{"product_id":"p","in_stock":true,"at":"2026-03-02T10:05:00.000Z"}'
    damaged = [b"{", b"\xff", b"[]", b"null", b'{"product_id":1}', b"[" * 10_000]
    tables.take("catalog", [Entry(i, b"p", value) for i, value in enumerate([gone, older, *damaged])], 8)
    assert not tables.stock["p"].in_stock
    tables.take("catalog", [Entry(8, b"p", b"")], 9)
    assert tables.stock == {}
    pause = b'{"paused":true,"at":"2026-03-02T10:05:00.000Z","by":"ann"}'
    records = [(b"pause:cart", pause), (b"pin:model", b"7"), *((b"pause:cart", value) for value in damaged)]
    tables.take("control", [Entry(i, key, value) for i, (key, value) in enumerate(records)], len(records))
    assert list(tables.paused) == ["cart"]
    assert tables.switches == 1
    tables.take("control", [Entry(9, b"pause:cart", b"")], 10)
    assert tables.paused == {}
