"""Who a person is: merges, aliases, shared devices, erasure."""

from __future__ import annotations

from typing import Any

from tests.play import at, config, identify, play, play_raw, track


def anonymous(
    clock: str, message_id: str, anonymous_id: str, event: str = "Product Added", **more: Any
) -> dict[str, Any]:
    """A track event of a person who is not known yet."""
    return track(clock, message_id, event, user=None, anonymousId=anonymous_id, **more)


def alias(clock: str, message_id: str, previous: str, user: str) -> dict[str, Any]:
    """An alias event: `previous` is `user`."""
    return {"messageId": message_id, "type": "alias", "timestamp": at(clock), "previousId": previous, "userId": user}


def test_a_timer_of_an_anonymous_person_moves_to_the_known_one() -> None:
    """The decision keeps the id it had under the anonymous id, and goes to the known person's address."""
    played = play([anonymous("10:00", "t1", "anon"), identify("10:10", "m2", anonymousId="anon")])
    assert played.sent == [("t1", "10:30:00")]
    assert (played.decisions[0]["user_id"], played.decisions[0]["address"]) == ("u1", "u1@example.com")


def test_later_events_of_the_merged_id_follow() -> None:
    """After the merge an event of the anonymous id cancels the known person's timer."""
    events = [
        track("10:00", "t1"),
        identify("10:05", "m2", anonymousId="anon"),
        anonymous("10:10", "buy", "anon", "Order Completed"),
    ]
    assert play(events).reasons == [["cancelled"]]


def test_pending_timers_unite_with_the_earliest_first_event() -> None:
    """Both had a timer: one decision is left, due by the earlier trigger."""
    events = [
        anonymous("10:00", "t1", "anon"),
        track("10:10", "t2"),
        identify("10:20", "m2", anonymousId="anon"),
    ]
    assert play(events).sent == [("t1", "10:30:00")]


def test_a_purchase_of_either_id_cancels_the_other_ones_timer() -> None:
    """The known person bought before the anonymous cart was recognised as theirs."""
    events = [
        anonymous("10:00", "t1", "anon"),
        track("10:10", "buy", "Order Completed"),
        identify("10:20", "m2", anonymousId="anon"),
    ]
    assert play(events).reasons == [["cancelled"]]


def test_a_shared_device_merges_nothing_and_sends_later_events_to_the_new_person() -> None:
    """The tablet belongs to u1; when u2 signs in, later anonymous events are u2's and u1 keeps the rest."""
    events = [
        identify("09:00", "i2", "u2"),
        identify("09:10", "m1", "u1", anonymousId="tablet"),
        anonymous("10:00", "t1", "tablet"),
        identify("10:05", "m2", "u2", anonymousId="tablet"),
        anonymous("10:10", "t2", "tablet"),
    ]
    played = play(events)
    assert [(d["user_id"], d["trigger"]["message_id"]) for d in played.decisions] == [("u1", "t1"), ("u2", "t2")]


def test_two_known_persons_are_merged_by_alias_only() -> None:
    """An identify with another known person's id as anonymous id merges nothing; an alias does."""
    events = [
        identify("09:00", "i2", "u2"),
        track("10:00", "t1", user="u2"),
        identify("10:05", "m1", "u1", anonymousId="u2"),
    ]
    assert play(events).decisions[0]["user_id"] == "u2"
    assert play([*events, alias("10:06", "a1", "u2", "u1")]).decisions[0]["user_id"] == "u1"


def test_an_id_that_ever_was_a_users_own_is_not_taken_for_a_device() -> None:
    """`u2` never identified, but tracked under its own id: somebody else's identify with it merges nothing."""
    events = [track("10:00", "t1", user="u2"), identify("10:05", "m1", "u1", anonymousId="u2")]
    assert play(events).reasons == [["no_address"]]


def test_a_chain_of_aliases_is_followed() -> None:
    """A is b, b is c: an event of a counts for c."""
    events = [
        alias("09:00", "a1", "a", "b"),
        alias("09:01", "a2", "b", "u1"),
        track("10:00", "t1", user="a"),
    ]
    assert [d["user_id"] for d in play(events).decisions] == ["u1"]


def test_a_long_chain_of_aliases_is_followed() -> None:
    """Sixty names one after the other are one person."""
    chain = [alias("09:00", f"a{number}", f"k{number}", f"k{number + 1}") for number in range(60)]
    events = [*chain, track("10:00", "t1", user="k60"), track("10:05", "buy", "Order Completed", user="k0")]
    assert play(events).reasons == [["cancelled"]]


def test_a_circle_of_aliases_is_harmless() -> None:
    """A is b and b is a: one person is left, and every event counts once."""
    events = [
        identify("08:00", "i1", "a"),
        alias("09:00", "a1", "a", "b"),
        alias("09:01", "a2", "b", "a"),
        track("10:00", "t1", user="a"),
        track("10:01", "t2", user="b"),
    ]
    played = play(events)
    assert [who for who, _ in played.sent] == ["t1"]


def test_merging_the_same_ids_again_changes_nothing() -> None:
    """Every identify names both ids, as SDKs do; counts are not added twice."""
    views = [anonymous("09:00", "v1", "anon", "Order Completed", properties={"revenue": 5})]
    again = [identify(f"09:{minute}", f"m{minute}", anonymousId="anon") for minute in range(10, 20)]
    setup = config(campaign={"when": "user.orders_total == 1 && user.revenue_total == 5.0"})
    assert play([*views, *again, track("10:00", "t1")], setup=setup).sent == [("t1", "10:30:00")]


def test_counters_add() -> None:
    """Orders of both ids are the person's."""
    events = [
        anonymous("09:00", "o1", "anon", "Order Completed", properties={"revenue": 5}),
        track("09:05", "o2", "Order Completed", properties={"revenue": 7.5}),
        identify("09:10", "m2", anonymousId="anon"),
        track("10:00", "t1"),
    ]
    setup = config(campaign={"when": "user.orders_1d == 2 && user.revenue_1d == 12.5"})
    assert play(events, setup=setup).sent == [("t1", "10:30:00")]


def test_the_more_restrictive_consent_wins() -> None:
    """The anonymous person refused e-mail; the known one had agreed."""
    refuse = {"messageId": "i0", "type": "identify", "timestamp": at("09:00"), "anonymousId": "anon"}
    events = [
        {**refuse, "traits": {"consent": {"email": False}}},
        identify("09:10", "m1", traits={"email": "a@example.com", "consent": {"email": True}}),
        identify("09:20", "m2", anonymousId="anon", traits={}),
        track("10:00", "t1"),
    ]
    assert play(events).reasons == [["no_consent"]]


def test_an_event_of_the_future_person_before_the_merge_is_kept() -> None:
    """An anonymous person alone, never identified, has no address: suppressed, and the log says why."""
    assert play_raw([anonymous("10:00", "t1", "anon")]).reasons == [["no_address"]]


def test_erasure_forgets_and_stays() -> None:
    """After `delete` the timer is gone, the log has the proof, and replayed old events bring nobody back."""
    old = track("10:00", "t1")
    gone = {"messageId": "d", "type": "delete", "timestamp": at("10:10"), "userId": "u1"}
    played = play([old, gone, {**old, "messageId": "t1-again", "receivedAt": at("10:20")}])
    assert played.sent == []
    assert played.reasons == [["erased"], ["erased"]]
    assert b"example.com" not in played.memory.profiles["u1"]


def test_after_erasure_the_person_may_begin_anew() -> None:
    """Events after the erasure are a new history: nothing of the old one is known."""
    gone = {"messageId": "d", "type": "delete", "timestamp": at("10:10"), "userId": "u1"}
    played = play([gone, track("11:00", "t2")])
    assert played.reasons[-1] == ["no_address"]
