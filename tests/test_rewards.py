"""What an outcome is worth, to which decision it belongs, and that nothing but what counts ends up in the examples."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from tests.play import Played, at, config, identify, play, track

CLICK, SPAM = "Email Link Clicked", "Email Marked as Spam"
GOAL = {"event": "Order Completed", "within": "72h", "value": "properties.revenue"}


def setup(policy: dict[str, Any] | None = None, goal: dict[str, Any] | None = GOAL, **changes: Any) -> Any:
    """The usual campaign, decided at once, with a goal and a policy."""
    campaign = {"trigger": {"delay": "0s"}, "goal": goal, "policy": policy or {}} | changes
    return config(campaign={key: value for key, value in campaign.items() if value is not None})


def story(*events: dict[str, Any], setup: Any) -> Played:
    """One message at 09:00, then what happens."""
    return play([track("09:00", "m1"), *events], setup=setup)


def rewards(played: Played) -> list[float]:
    """Sum of each decision's `subject` examples, in the order of decisions."""
    found: dict[str, float] = defaultdict(float)
    for record in played.examples:
        if record["policy"].endswith("/subject"):
            found[record["decision_id"]] += record["reward"]
            assert record["reward"] == (record["delta"] if record["correction"] else 0.0)
    return list(found.values())


def order(clock: str, revenue: float = 50.0, message_id: str = "o1", **properties: Any) -> dict[str, Any]:
    """An order."""
    return track(clock, message_id, "Order Completed", properties={"revenue": revenue, **properties})


OPENS = {"rewards": [{"event": "Email Opened", "weight": 1}]}
LEAVING = {"penalties": {"unsubscribed": 1}}
QUICK = {"rewards": [{"event": CLICK, "weight": 2, "within": "24h"}]}


@pytest.mark.parametrize(
    ("policy", "events", "expected"),
    [
        (QUICK, [track("10:00", "c1", CLICK)], 2.0),
        (QUICK, [track("10:00", "c1", CLICK), track("11:00", "c2", CLICK)], 2.0),
        (QUICK, [track("10:00", "c1", CLICK), order("12:00")], 52.0),
        (QUICK, [order("10:00"), track("11:00", "c1", CLICK), order("12:00", message_id="o2")], 52.0),
        (QUICK, [track("+1d 10:00", "c1", CLICK)], 0.0),
        (QUICK, [track("10:00", "c1", CLICK, properties={"machine_click": True})], 0.0),
        (OPENS, [track("10:00", "x", "Email Opened", properties={"machine_open": True})], 0.0),
        (OPENS, [track("10:00", "x", "Email Opened")], 1.0),
        ({"rewards": [{"event": "Order Completed", "weight": 0.1}]}, [order("10:00")], 5.0),
        ({"rewards": [{"event": "Order Cancelled", "weight": -3}]}, [track("10:00", "x", "Order Cancelled")], -3.0),
        ({"penalties": {"unsubscribed": 1, "complained": 5}}, [track("10:00", "x", "Unsubscribed")], -1.0),
        ({"penalties": {"unsubscribed": 1, "complained": 5}}, [track("10:00", "x", SPAM)], -5.0),
        ({"penalties": {"complained": 5}}, [track("10:00", "x", "Unsubscribed"), track("10:01", "y", SPAM)], -5.0),
        ({"penalties": {"complained": 5}}, [track("10:00", "x", SPAM), track("10:01", "y", SPAM)], -5.0),
        (LEAVING, [track("10:00", "x", "Unsubscribed", properties={"channel": "push"})], 0.0),
        (LEAVING, [order("09:30"), track("10:00", "x", "Unsubscribed")], 49.0),
        ({}, [track("10:00", "c1", CLICK), track("10:00", "x", "Unsubscribed")], 0.0),
    ],
)  # fmt: skip
def test_a_decision_is_credited_once_with_each_thing_that_counts(
    policy: dict[str, Any], events: list[dict[str, Any]], expected: float
) -> None:
    """Goal and other events add up, each once; machines count for nothing; refusals cost what they are said to cost."""
    assert rewards(story(*events, setup=setup(policy))) == [expected]


def test_a_goal_is_clipped_and_counted() -> None:
    """One large order counts for no more than `clip`, and a metric says that it happened."""
    played = story(order("10:00", 9_999.0), setup=setup(goal=GOAL | {"clip": 100}))
    assert rewards(played) == [100.0]
    assert played.counts["clipped_rewards_total", "cart"] == 1
    assert story(order("10:00"), setup=setup(goal=GOAL | {"clip": 100})).counts["clipped_rewards_total", "cart"] == 0


def test_an_outcome_belongs_to_the_decision_it_names_else_to_the_latest() -> None:
    """Two messages: a click that names the first one is its, the one that names none is the second's."""
    first = story(setup=setup(QUICK)).decisions[0]["decision_id"]
    named = track("10:02", "c1", CLICK, properties={"decision_id": first})
    played = story(track("10:00", "m2"), named, track("10:03", "c2", CLICK), setup=setup(QUICK))
    assert rewards(played) == [2.0, 2.0]
    played = story(track("10:00", "m2"), track("10:03", "c2", CLICK), setup=setup(QUICK))
    assert rewards(played) == [0.0, 2.0]


def test_a_late_correction_says_when_its_example_was() -> None:
    """It counts all the same, is counted as late, and names the time of the example that it corrects."""
    first = story(setup=setup()).decisions[0]["decision_id"]
    late = order("+4d 10:00", decision_id=first)
    played = play([track("09:00", "m1"), late], until="+5d 00:00", setup=setup())
    assert rewards(played) == [50.0]
    assert played.counts["late_rewards_total", "cart"] == 1
    corrections = [record for record in played.examples if record["correction"]]
    assert {record["sent_at"] for record in corrections} == {at("09:00")}
    assert {record["at"] for record in corrections} == {at("+4d 10:00")}
    assert {record["policy"] for record in corrections} == {"cart/channel", "cart/send_time", "cart/subject"}


def test_penalties_are_counted_apart() -> None:
    """A Prometheus counter cannot go back: negative rewards have one of their own."""
    played = story(track("10:00", "x", SPAM), setup=setup({"penalties": {"complained": 5}}))
    assert played.counts["penalties_total", "cart", SPAM] == 5
    assert played.counts["reward_total", "cart", SPAM] == 0


def test_erasing_a_person_takes_back_what_was_learned_from_them() -> None:
    """One record for each example that is still held; with it the sum of each is 0, and the example itself goes."""
    erased = {"type": "delete", "messageId": "d1", "userId": "u1", "timestamp": at("12:00")}
    played = story(order("10:00"), erased, setup=setup(QUICK))
    forgotten = [record for record in played.examples if record.get("forget")]
    assert {record["policy"] for record in forgotten} == {"cart/channel", "cart/send_time", "cart/subject"}
    assert all(record["correction"] and record["delta"] == -50.0 for record in forgotten)
    assert rewards(played) == [0.0]
    assert played.counts["forgotten_examples_total", "cart"] == 3
    again = story(order("10:00"), erased, {**erased, "messageId": "d2"}, setup=setup(QUICK))
    assert len([record for record in again.examples if record.get("forget")]) == 3


def test_what_a_message_cost_is_taken_back_too() -> None:
    """After an erasure the sum of each example's records is 0, also of the channel's, which began with the cost."""
    erased = {"type": "delete", "messageId": "d1", "userId": "u1", "timestamp": at("12:00")}
    costly = {"contact_cost": 0.25, "explore": 0.001}
    played = story(order("10:00"), erased, setup=setup(costly))
    sums: dict[str, float] = defaultdict(float)
    for record in played.examples:
        sums[record["policy"]] += record["reward"]
    assert played.examples[0]["reward"] == -0.25
    assert sums == dict.fromkeys(("cart/channel", "cart/send_time", "cart/subject"), 0.0)


def test_without_anything_that_counts_nothing_is_corrected() -> None:
    """A campaign without goal, rewards and penalties posts its examples and no more."""
    played = story(order("10:00"), track("10:01", "x", "Unsubscribed"), setup=setup(goal=None))
    assert [record["correction"] for record in played.examples] == [False] * 3


COSTLY = {"contact_cost": 0.5, "explore": 1.0}


def test_sending_nothing_is_an_arm_where_messages_cost() -> None:
    """Of many people some get nothing: no decision, an example of the arm `none`, and goals count for it."""
    users = [f"p{number}" for number in range(40)]
    events = [identify("08:00", f"i{user}", user) for user in users]
    events += [track("09:00", f"m{user}", user=user) for user in users]
    events += [{**order("10:00", message_id=f"o{user}"), "userId": user} for user in users]
    played = play(events, setup=setup(COSTLY))
    nothing = [entry for entry in played.log if entry["reasons"] == ["not_worthwhile"]]
    assert len(nothing) + len(played.decisions) == 40
    assert 10 < len(nothing) < 30
    for entry in nothing:
        assert (entry["action"], entry["channel"], entry["propensity"]) == ("suppress", None, {"channel": 0.5})
        mine = [record for record in played.examples if record["decision_id"] == entry["decision_id"]]
        assert [(record["policy"], record["arm"], record["reward"]) for record in mine] == [
            ("cart/channel", "none", 0.0),
            ("cart/channel", "none", 50.0),
        ]
    sent = {decision["decision_id"] for decision in played.decisions}
    costs = [r["reward"] for r in played.examples if r["decision_id"] in sent and not r["correction"]]
    assert sorted(costs) == [-0.5] * len(sent) + [0.0] * (2 * len(sent))


def test_it_is_no_arm_by_default() -> None:
    """Without `contact_cost` every message that may be sent is."""
    assert story(setup=setup({"explore": 1.0})).log[0]["arms"]["channel"] == {"email": 1.0}
