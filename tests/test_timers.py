"""Timers: when they are due, what moves them, what ends them, in event time whatever the order of arrival."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from tests.play import at, config, identify, play, play_raw, track


def test_due_is_event_time_plus_delay() -> None:
    """A trigger at 10:00 with a delay of 30 minutes is decided at 10:30, not before."""
    assert play([track("10:00", "t1")], until="10:29:59").sent == []
    assert play([track("10:00", "t1")], until="10:30").sent == [("t1", "10:30:00")]


def test_another_trigger_changes_nothing_while_one_is_pending() -> None:
    """The second trigger neither moves the timer nor replaces its contents."""
    setup = config(campaign={"variants": {"subject": [{"id": "a", "text": "{{ event.properties.name }}"}]}})
    first = track("10:00", "t1", properties={"name": "boots"})
    played = play([first, track("10:20", "t2", properties={"name": "hat"})], setup=setup)
    assert played.sent == [("t1", "10:30:00")]
    assert played.decisions[0]["content"]["subject"] == "boots"


def test_a_restart_moves_the_timer_and_keeps_the_latest_contents() -> None:
    """The decision is named after the first event and speaks of the latest."""
    setup = config(
        campaign={
            "trigger": {"restart_on": ["Product Added"]},
            "variants": {"subject": [{"id": "a", "text": "{{ event.properties.name }}"}]},
        }
    )
    first = track("10:00", "t1", properties={"name": "boots"})
    played = play([first, track("10:20", "t2", properties={"name": "hat"})], setup=setup)
    assert played.sent == [("t1", "10:50:00")]
    assert played.decisions[0]["content"]["subject"] == "hat"


def test_a_restart_that_is_no_trigger_keeps_the_contents() -> None:
    """`event` in texts is the latest event named in `trigger.event`."""
    setup = config(
        campaign={
            "trigger": {"restart_on": ["Cart Viewed"]},
            "variants": {"subject": [{"id": "a", "text": "{{ event.properties.name }}"}]},
        }
    )
    events = [track("10:00", "t1", properties={"name": "boots"}), track("10:20", "c", "Cart Viewed")]
    played = play(events, setup=setup)
    assert played.sent == [("t1", "10:50:00")]
    assert played.decisions[0]["content"]["subject"] == "boots"


def test_restarts_never_push_past_max_wait() -> None:
    """With max_wait 1 h, restarts every 20 minutes end in a decision an hour after the first event."""
    setup = config(campaign={"trigger": {"restart_on": ["Product Added"], "max_wait": "1h"}})
    events = [track(clock, clock) for clock in ("10:00", "10:20", "10:40", "10:55")]
    assert play(events, until="11:00", setup=setup).sent == [("10:00", "11:00:00")]


def test_a_late_restart_does_not_move_the_timer_back() -> None:
    """A restart that happened before the latest one and is read after it changes nothing."""
    setup = config(campaign={"trigger": {"restart_on": ["Product Added"]}})
    late = track("10:05", "late", receivedAt=at("10:25"))
    assert play([track("10:00", "t1"), track("10:20", "t2"), late], setup=setup).sent == [("t1", "10:50:00")]


def test_a_trigger_read_after_it_was_due_is_decided_at_once() -> None:
    """The decision says when it was due and when it was made."""
    played = play([track("10:00", "t1", receivedAt=at("11:00"))])
    assert played.sent == [("t1", "11:00:00")]
    assert played.decisions[0]["due_at"] == at("10:30")


def test_without_delay_the_decision_is_made_at_once() -> None:
    """A delay of 0 s decides with the trigger itself."""
    setup = config(campaign={"trigger": {"delay": "0s"}})
    assert play([track("10:00", "t1")], until="10:00", setup=setup).sent == [("t1", "10:00:00")]


def test_where_keeps_events_from_triggering() -> None:
    """Only events that meet `where` open a timer; mistyped data is false and counted."""
    setup = config(campaign={"trigger": {"where": "event.properties.price >= 20"}})
    events = [
        track("10:00", "cheap", properties={"price": 19.99}),
        track("10:01", "text", properties={"price": "25"}),
        track("10:02", "good", properties={"price": 20}),
    ]
    played = play(events, setup=setup)
    assert played.sent == [("good", "10:32:00")]
    assert played.counts["expression_errors_total", "cart.where"] == 1


PER = {"trigger": {"per": "properties.cart_id", "restart_on": ["Cart Viewed"]}}


def test_one_timer_for_each_per_value() -> None:
    """Two carts are two decisions; a trigger without the value is a third."""
    events = [
        track("10:00", "a", properties={"cart_id": "c1"}),
        track("10:01", "b", properties={"cart_id": "c2"}),
        track("10:02", "c"),
        track("10:03", "d", properties={"cart_id": "c1"}),
    ]
    assert [who for who, _ in play(events, setup=config(campaign=PER)).sent] == ["a", "b", "c"]


@pytest.mark.parametrize(("cart", "left"), [("c1", ["b", "c"]), (None, []), ("c3", ["a", "b", "c"])])
def test_a_cancel_concerns_its_per_value_or_all(cart: str | None, left: list[str]) -> None:
    """With the value a cancel ends that timer only; without it, all of the person's."""
    events = [
        track("10:00", "a", properties={"cart_id": "c1"}),
        track("10:01", "b", properties={"cart_id": "c2"}),
        track("10:02", "c"),
        track("10:05", "buy", "Order Completed", properties={"cart_id": cart} if cart else {}),
    ]
    assert [who for who, _ in play(events, setup=config(campaign=PER)).sent] == left


def test_a_cancel_names_itself_in_the_log() -> None:
    """The log has the reason and the message id of the event that cancelled."""
    played = play([track("10:00", "t1"), track("10:10", "buy", "Order Completed")])
    assert played.sent == []
    assert [(e["reasons"], e["cancelled_by"]) for e in played.log] == [(["cancelled"], "buy")]


def test_a_cancel_before_the_trigger_does_not_count() -> None:
    """Trigger time <= event time: a purchase before the cart was filled cancels nothing."""
    events = [track("09:59:59", "buy", "Order Completed"), track("10:00", "t1")]
    assert play(events).sent == [("t1", "10:30:00")]


def test_on_equal_times_the_order_of_reading_decides() -> None:
    """At the same instant, a cancel read after the trigger cancels and one read before it does not."""
    trigger, buy = track("10:00", "t1"), track("10:00", "buy", "Order Completed")
    assert play([trigger, buy]).sent == []
    assert play([buy, trigger]).sent == [("t1", "10:30:00")]


def test_a_cancel_read_before_its_trigger_cancels() -> None:
    """Out of order: the purchase at 10:10 is read first, the trigger at 10:00 after it."""
    events = [track("10:10", "buy", "Order Completed"), track("10:00", "t1", receivedAt=at("10:11"))]
    played = play(events)
    assert played.sent == []
    assert played.log[0]["cancelled_by"] == "buy"


def test_a_cancel_read_before_its_trigger_cancels_in_every_campaign() -> None:
    """However many campaigns name the event: it is remembered once, for all of them."""
    one = config().model_dump(by_alias=True, mode="json")["campaigns"][0]
    many = config(campaigns=[{**one, "id": f"c{number}"} for number in range(40)])
    events = [track("10:10", "buy", "Order Completed"), track("10:00", "t1", receivedAt=at("10:11"))]
    played = play(events, setup=many)
    assert played.sent == []
    assert len(played.log) == 40


def test_a_cancel_of_another_cart_read_before_the_trigger_does_not_count() -> None:
    """Remembered events keep their `per` value."""
    early = track("10:10", "buy", "Order Completed", properties={"cart_id": "c2"})
    late = track("10:00", "t1", properties={"cart_id": "c1"}, receivedAt=at("10:11"))
    assert play([early, late], setup=config(campaign=PER)).sent == [("t1", "10:30:00")]
    assert play([{**early, "properties": {"cart_id": "c1"}}, late], setup=config(campaign=PER)).sent == []


def test_a_large_trigger_is_kept_as_its_short_values_and_counted() -> None:
    """Beyond 32 KB texts see what is short; a metric says so."""
    setup = config(campaign={"variants": {"subject": [{"id": "a", "text": "{{ event.properties.name }}"}]}})
    large = track("10:00", "t1", properties={"name": "boots", "products": ["x" * 1000] * 40})
    played = play([large], setup=setup)
    assert played.decisions[0]["content"]["subject"] == "boots"
    assert played.counts["trimmed_events_total",] == 1


def test_a_cancel_at_the_very_moment_of_decision_counts() -> None:
    """Timers due at a line's arrival fire after that line, and event time <= moment of decision includes equality."""
    played = play([track("10:00", "t1"), track("10:30", "buy", "Order Completed")])
    assert played.reasons == [["cancelled"]]


def test_a_cancel_from_the_future_does_not_count_before_its_time() -> None:
    """A client's clock is 4 minutes ahead: the purchase 'at 10:32' does not cancel the decision of 10:30."""
    events = [track("10:00", "t1"), track("10:32", "buy", "Order Completed", receivedAt=at("10:28"))]
    assert play(events).sent == [("t1", "10:30:00")]


def test_a_cancel_from_the_future_counts_once_its_time_has_come() -> None:
    """The same purchase 'at 10:30' cancels the decision of 10:30."""
    events = [track("10:00", "t1"), track("10:30", "buy", "Order Completed", receivedAt=at("10:28"))]
    assert play(events).reasons == [["cancelled"]]


def test_a_cancelled_timer_makes_room_for_the_next() -> None:
    """After a purchase the cart fills again: that is a new decision."""
    events = [track("10:00", "t1"), track("10:10", "buy", "Order Completed"), track("10:20", "t2")]
    assert play(events).sent == [("t2", "10:50:00")]


def test_every_order_of_arrival_gives_the_same_decision() -> None:
    """Trigger, purchase and next trigger arrive together in any order; only the one after the purchase is sent."""
    story = [track("10:00", "t1"), track("10:10", "buy", "Order Completed"), track("10:20", "t2")]
    for order in permutations(story):
        events = [{**event, "receivedAt": at("10:21")} for event in order]
        assert play(events).sent == [("t2", "10:50:00")], [event["messageId"] for event in order]


def test_a_goal_reached_before_the_decision_is_not_asked_for() -> None:
    """The goal event is no cancel event here; the decision is suppressed as goal_reached when it is due."""
    setup = config(campaign={"trigger": {"cancel_on": []}, "goal": {"event": "Order Completed", "within": "72h"}})
    played = play([track("10:00", "t1"), track("10:10", "buy", "Order Completed")], setup=setup)
    assert played.reasons == [["goal_reached"]]
    assert played.log[0]["decided_at"] == at("10:30")


def test_a_decision_after_expiry_is_expired() -> None:
    """`expires_after` runs from due; exactly then is still in time."""
    setup = config(campaign={"expires_after": "1h"})
    assert play([track("10:00", "t1", receivedAt=at("11:30"))], setup=setup).sent == [("t1", "11:30:00")]
    assert play([track("10:00", "t1", receivedAt=at("11:30:01"))], setup=setup).reasons == [["expired"]]


def test_cooldown_counts_sends_of_the_campaign() -> None:
    """Within a day of a send the campaign does not write again; after it, it does."""
    setup = config(campaign={"cooldown": "24h"})
    events = [track("10:00", "t1"), track("12:00", "t2"), track("+1d 10:00", "t3")]
    played = play(events, until="+1d 23:00", setup=setup)
    assert [who for who, _ in played.sent] == ["t1", "t3"]
    assert played.reasons == [["cooldown"]]


def test_the_decision_id_depends_on_campaign_person_and_trigger_alone() -> None:
    """The same input gives the same id in every run; another person or message gives another."""

    def ids(events: list[dict[str, Any]]) -> list[str]:
        return [decision["decision_id"] for decision in play(events).decisions]

    one = ids([track("10:00", "t1")])
    assert one == ids([track("10:00", "t1"), track("10:05", "x", "Page Seen")])
    other = ids([track("10:00", "t2")]) + ids([identify("09:00", "i2", "u2"), track("10:00", "t1", user="u2")])
    assert len({*one, *other}) == 3


def test_the_same_message_counts_once() -> None:
    """A trigger that is delivered three times is one decision, also after it was decided."""
    twice = track("10:00", "t1")
    played = play([twice, twice, track("10:40", "x", "Page Seen"), {**twice, "receivedAt": at("10:41")}])
    assert played.sent == [("t1", "10:30:00")]
    assert played.counts["duplicates_total",] == 2


def test_timers_of_a_removed_campaign_are_cancelled() -> None:
    """A new configuration holds for what is pending."""
    held = play([track("10:00", "t1")], until="10:10").memory
    renamed = config(campaign={"id": "other"})
    assert play_raw([track("11:00", "x", "Page Seen", "u9")], setup=renamed, memory=held).reasons == [["cancelled"]]


def test_the_event_that_opens_a_timer_does_not_reach_its_goal() -> None:
    """A campaign that starts with an order may want another one; that other one does reach it."""
    goal = {"event": "Order Completed", "within": "24h"}
    setup = config(campaign={"trigger": {"event": "Order Completed", "cancel_on": []}, "goal": goal})
    first, second = (track(clock, clock, "Order Completed") for clock in ("10:00", "10:10"))
    assert play([first], setup=setup).sent == [("10:00", "10:30:00")]
    assert play([first, second], setup=setup).reasons == [["goal_reached"]]
