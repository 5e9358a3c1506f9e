"""The simulated shop: reproducible, of the wanted rate, and believable."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

import pytest

from decisioning import simulate
from decisioning.simulate import Simulated

START_MS = 1_767_258_000_000


def _take(count: int, **changes: Any) -> list[Simulated]:
    wanted: dict[str, Any] = {"seed": 7, "people": 500, "rate_per_s": 100.0, "start_ms": START_MS} | changes
    return list(itertools.islice(simulate.events(**wanted), count))


def _decoded(records: list[Simulated]) -> list[dict[str, Any]]:
    return [json.loads(record.value) for record in records]


def test_same_seed_same_bytes() -> None:
    """The same arguments give the same records; another seed gives others."""
    assert _take(2000, odd_share=0.1) == _take(2000, odd_share=0.1)
    assert _take(100) != _take(100, seed=8)


def test_the_rate_is_kept_from_the_first_second_on() -> None:
    """20,000 Poisson events at 100/s last 200 s, 5 standard deviations being 7.1 s; and so for each tenth."""
    records = _take(20_000)
    assert abs(records[-1].at_ms - START_MS - 200_000) < 7_100
    for tenth in range(10):
        part = records[tenth * 2000 : (tenth + 1) * 2000]
        assert abs(part[-1].at_ms - part[0].at_ms - 20_000) < 5 * 447


@pytest.mark.parametrize("odd_share", [0.0, 0.2])
def test_arrivals_never_go_back(odd_share: float) -> None:
    """Records come in the order of their arrival, also where late ones are held back."""
    records = _take(5000, odd_share=odd_share)
    assert all(one.at_ms <= next_one.at_ms for one, next_one in itertools.pairwise(records))


def test_without_oddities_every_record_is_a_sound_event() -> None:
    """Required fields, one message id each, the key is the user's id and else the device's."""
    records = _take(5000)
    events = _decoded(records)
    assert len({event["messageId"] for event in events}) == len(events)
    for record, event in zip(records, events, strict=True):
        assert record.key.decode() == event.get("userId", event.get("anonymousId"))
        assert event["timestamp"] == event["receivedAt"]
        assert event["type"] in {"track", "identify"}
        assert ("event" in event) == (event["type"] == "track")


def test_orders_follow_carts() -> None:
    """Nobody buys, removes or looks at a cart without having added something to it before."""
    filled = set()
    for event in _decoded(_take(20_000)):
        name, cart = event.get("event"), event.get("properties", {}).get("cart_id")
        if name == "Product Added":
            filled.add(cart)
        elif cart is not None:
            assert cart in filled, name


def test_some_visitors_sign_in_later() -> None:
    """An anonymous visitor may identify: the call carries both ids, and later events the user's."""
    events = _decoded(_take(20_000))
    identifies = [event for event in events if event["type"] == "identify"]
    identified = {event["anonymousId"]: event["userId"] for event in identifies if "anonymousId" in event}
    anonymous = {event["anonymousId"] for event in events if "userId" not in event}
    assert len(anonymous & identified.keys()) > 100
    assert len(anonymous & identified.keys()) > 0.5 * len(identified)  # the others signed in first of all
    assert all("@" in event["traits"]["email"] for event in identifies)


def test_activity_follows_zipf() -> None:
    """A tenth of the people makes far more than a tenth of the events, nobody alone makes a tenth."""
    counts = Counter(record.key for record in _take(50_000) if record.key.startswith(b"u-"))
    top = [count for _, count in counts.most_common(50)]
    assert 0.2 < sum(top) / counts.total() < 0.6
    assert top[0] / counts.total() < 0.1


def test_oddities_are_of_every_kind() -> None:
    """With a share of 20 % there are duplicates, late ones, wrong clocks and records that are no events."""
    records = _take(5000, odd_share=0.2)
    broken = sum(record.value in simulate.POISON for record in records)
    events = _decoded([record for record in records if record.value not in simulate.POISON])
    repeated = len(events) - len({event["messageId"] for event in events})
    skewed = sum(event["timestamp"] != event["receivedAt"] for event in events)
    numbers = [int(event["messageId"].rpartition("-")[2]) for event in events]
    late = sum(number < max(numbers[:place]) - 200 for place, number in enumerate(numbers) if place)
    for count in (broken, repeated, skewed, late):  # of 250 each
        assert 100 < count < 500


@pytest.mark.parametrize(
    "changes", [{"people": 0}, {"rate_per_s": 0.0}, {"think_s": 0.0}, {"odd_share": 1.0}, {"odd_share": -0.1}]
)
def test_impossible_arguments_are_refused(changes: dict[str, Any]) -> None:
    """The error names the arguments and what was expected."""
    with pytest.raises(ValueError, match="expected at least one person"):
        _take(1, **changes)
