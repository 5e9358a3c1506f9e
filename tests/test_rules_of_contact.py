"""What keeps a message from being a mistake: consent, suppression, caps, quiet hours, holdout, stock."""

from __future__ import annotations

from typing import Any

import pytest

from tests.play import at, config, identify, play, track

BOTH = {"channels": ["email", "push"]}


def everyone(share: float) -> set[str]:
    """Who of 200 people is held out at a share."""
    setup = config(holdout={"share": share, "salt": "s"}, campaign={"trigger": {"delay": "0s"}})
    people = [f"p{number}" for number in range(200)]
    events = [event for p in people for event in (identify("09:00", f"i{p}", p), track("10:00", p, user=p))]
    return {entry["user_id"] for entry in play(events, setup=setup).log if entry["action"] == "holdout"}


def test_no_consent_suppresses_marketing_and_not_transactional() -> None:
    """Consent false on the only channel; a transactional campaign goes out all the same."""
    events = [identify("09:00", "i", traits={"consent": {"email": False}}), track("10:00", "t1")]
    assert play(events).reasons == [["no_consent"]]
    assert play(events, setup=config(campaign={"kind": "transactional"})).sent == [("t1", "10:30:00")]


def test_consent_default_denied() -> None:
    """Without an entry the configuration's default counts."""
    assert play([track("10:00", "t1")], setup=config(consent={"default": "denied"})).reasons == [["no_consent"]]


def test_unsubscribed_takes_effect_for_what_is_pending() -> None:
    """An unsubscription after the trigger and before due suppresses; transactional still goes out."""
    events = [track("10:00", "t1"), track("10:20", "x", "Unsubscribed")]
    assert play(events).reasons == [["unsubscribed"]]
    assert play(events, setup=config(campaign={"kind": "transactional"})).sent == [("t1", "10:30:00")]


def test_a_later_consent_takes_an_unsubscription_back() -> None:
    """Who agrees again after unsubscribing is written to again."""
    events = [
        track("09:00", "x", "Unsubscribed"),
        identify("09:30", "i", traits={"consent": {"email": True}}),
        track("10:00", "t1"),
    ]
    assert play(events).sent == [("t1", "10:30:00")]


@pytest.mark.parametrize("kind", ["marketing", "transactional"])
def test_a_hard_bounce_stops_everything_on_that_channel(kind: str) -> None:
    """Also transactional; the other channel stays open."""
    events = [
        identify("09:00", "i", traits={"push_token": "tok"}),
        track("09:30", "b", "Email Bounced", properties={"bounce_type": "hard"}),
        track("10:00", "t1"),
    ]
    assert play(events, setup=config(campaign={"kind": kind})).reasons == [["hard_bounced"]]
    played = play(events, setup=config(campaign={"kind": kind, **BOTH}))
    assert played.decisions[0]["channel"] == "push"
    assert played.log[0]["channel_reasons"] == {"email": ["hard_bounced"]}


def test_every_refused_channel_has_its_reasons() -> None:
    """With no channel left the reasons are the channels' own and no_channel."""
    events = [track("09:30", "x", "Unsubscribed"), track("10:00", "t1")]
    played = play(events, setup=config(campaign=BOTH))
    assert played.log[0]["channel_reasons"] == {"email": ["unsubscribed"], "push": ["no_address"]}
    assert played.reasons == [["unsubscribed", "no_address", "no_channel"]]


def caps(*rules: dict[str, Any]) -> dict[str, Any]:
    """Configuration with caps and a campaign that decides at once."""
    return {"caps": list(rules), "campaign": {"trigger": {"delay": "0s"}}}


def test_a_rolling_cap_is_half_open() -> None:
    """(t - per, t]: exactly 24 h after a send there is room again, a second earlier there is not."""
    setup = config(**caps({"name": "daily", "channel": "any", "max": 1, "per": "24h"}))
    early = [track("10:00", "t1"), track("+1d 09:59:59", "t2")]
    assert play(early, until="+1d 23:00", setup=setup).reasons == [["frequency_cap:daily"]]
    exact = [track("10:00", "t1"), track("+1d 10:00", "t2")]
    assert len(play(exact, until="+1d 23:00", setup=setup).sent) == 2


def test_a_calendar_cap_counts_the_persons_own_day() -> None:
    """In Tokyo a new day begins at 15:00 UTC."""
    setup = config(**caps({"name": "day", "channel": "email", "max": 1, "per": "day"}))
    where = identify("09:00", "i", traits={"timezone": "Asia/Tokyo"})
    assert play([where, track("14:00", "t1"), track("14:59", "t2")], setup=setup).reasons == [["frequency_cap:day"]]
    assert len(play([where, track("14:00", "t1"), track("15:00", "t2")], setup=setup).sent) == 2


def test_a_bounce_gives_the_reservation_back() -> None:
    """A message that never arrived takes no room."""
    setup = config(**caps({"name": "daily", "channel": "any", "max": 1, "per": "24h"}))
    first = play([track("10:00", "t1")], setup=setup).decisions[0]["decision_id"]
    bounce = track("10:30", "b", "Email Bounced", properties={"bounce_type": "soft", "decision_id": first})
    assert len(play([track("10:00", "t1"), bounce, track("11:00", "t2")], setup=setup).sent) == 2


QUIET = {"from": "21:00", "to": "08:00"}


@pytest.mark.parametrize(
    ("trigger", "decided"),
    [
        ("20:29:59", "20:59:59"),  # just before they begin
        ("20:30", "08:00:00"),  # exactly at their beginning
        ("21:30", "08:00:00"),
    ],
)
def test_quiet_hours_are_half_open_and_cross_midnight(trigger: str, decided: str) -> None:
    """[from, to): deferred to their end."""
    setup = config(quiet_hours=QUIET)
    assert play([track(trigger, "t1")], until="+1d 12:00", setup=setup).sent == [("t1", decided)]


def test_a_decision_at_the_end_of_quiet_hours_goes_out() -> None:
    """Due at 08:00 exactly is not deferred."""
    played = play([track("07:30", "t1")], setup=config(quiet_hours=QUIET))
    assert played.sent == [("t1", "08:00:00")]
    assert played.log[0]["reasons"] == []


def test_deferral_past_expiry_is_expired() -> None:
    """Quiet hours end after the decision would be too late."""
    setup = config(quiet_hours=QUIET, campaign={"expires_after": "2h"})
    assert play([track("22:00", "t1")], until="+1d 12:00", setup=setup).reasons == [["expired"]]


def test_everything_is_checked_again_after_a_deferral() -> None:
    """A purchase in the night cancels what waits for the morning."""
    events = [track("22:00", "t1"), track("23:30", "buy", "Order Completed")]
    assert play(events, until="+1d 12:00", setup=config(quiet_hours=QUIET)).reasons == [["cancelled"]]


def test_the_ladder_of_time_zones() -> None:
    """Trait, then the latest event's context, then a country with one zone, then the configuration."""
    quiet = config(quiet_hours={"from": "00:00", "to": "12:00"}, timezone="America/New_York")

    def local(*rungs: dict[str, Any]) -> str:
        return play([*rungs, track("05:00", "t1")], until="23:00", setup=quiet).sent[0][1]

    country = identify("03:00", "i1", traits={"country": "JP"})
    context = track("03:10", "c", "Page Seen", context={"timezone": "Europe/Berlin"})
    trait = identify("03:20", "i2", traits={"timezone": "Asia/Kolkata"})
    bad = identify("03:30", "i3", traits={"timezone": "Mars/Olympus"})
    assert local() == "17:00:00"
    assert local(country) == "05:30:00"  # 14:30 in Tokyo
    assert local(country, context) == "11:00:00"
    assert local(country, context, trait) == "06:30:00"
    assert local(country, context, trait, bad) == "11:00:00"


def test_a_growing_holdout_only_adds_people() -> None:
    """Salted hash below the share: 10 % are among the 30 %."""
    small, large = everyone(0.1), everyone(0.3)
    assert small < large
    assert 5 <= len(small) <= 40
    assert 40 <= len(large) <= 80


def test_held_out_persons_get_a_log_record_and_nothing_else() -> None:
    """Action holdout in the log, no decision, and their goal is counted."""
    setup = config(
        holdout={"share": 1.0},
        campaign={"goal": {"event": "Order Completed", "within": "72h", "value": "properties.revenue"}},
    )
    buy = track("12:00", "buy", "Order Completed", properties={"revenue": 30})
    played = play([track("10:00", "t1"), buy], setup=setup)
    assert played.sent == []
    assert played.log[0]["action"] == "holdout"
    assert played.log[0]["propensity"] == {"holdout": 1.0}
    assert [(e["arm"], e.get("delta")) for e in played.examples] == [("holdout", None), ("holdout", 30.0)]


def test_out_of_stock_is_not_advertised() -> None:
    """The product sells out after the trigger; the other product does not matter."""
    setup = config(campaign={"requires_stock": "properties.product_id"})
    gone = {**track("10:10", "s", "Product Out of Stock", properties={"product_id": "p1"}), "userId": "product:p1"}
    back = {**track("10:20", "r", "Product Restocked", properties={"product_id": "p1"}), "userId": "product:p1"}
    one, two = (
        track("10:00", "t1", properties={"product_id": "p1"}),
        track("10:00", "t2", properties={"product_id": "p2"}),
    )
    assert play([one, gone], setup=setup).reasons == [["out_of_stock"]]
    assert play([one, gone, back], setup=setup).sent == [("t1", "10:30:00")]
    played = play([two, gone], setup=setup)
    assert played.sent == [("t2", "10:30:00")]
    assert "product:p1" not in played.memory.rows


def test_stock_is_what_was_said_last_in_event_time() -> None:
    """An older restock that is read after the sell-out does not bring the product back."""
    setup = config(campaign={"requires_stock": "properties.product_id"})
    product = {"properties": {"product_id": "p1"}, "userId": "product:p1"}
    gone = {**track("10:10", "s", "Product Out of Stock"), **product}
    older = {**track("10:05", "r", "Product Restocked", receivedAt=at("10:11")), **product}
    one = track("10:00", "t1", properties={"product_id": "p1"})
    assert play([one, gone, older], setup=setup).reasons == [["out_of_stock"]]


def test_an_address_that_would_forge_headers_is_none() -> None:
    """A line break in an address is nothing anybody can write to."""
    forged = identify("09:00", "i", traits={"email": "a@example.com\r\nBcc: all@example.com"})
    assert play([forged, track("10:00", "t1")]).reasons == [["no_address"]]


def test_rules_and_eligibility() -> None:
    """A hard rule and the campaign's own condition, each with its code."""
    minors = [{"name": "no-minors", "when": "user.traits.age < 18"}]
    child = identify("09:00", "i", traits={"age": 12})
    assert play([child, track("10:00", "t1")], setup=config(rules=minors)).reasons == [["rule:no-minors"]]
    assert play([track("10:00", "t1")], setup=config(rules=minors)).sent == [("t1", "10:30:00")]
    assert play([track("10:00", "t1")], setup=config(campaign={"when": "user.orders_total > 0"})).reasons == [
        ["not_eligible"]
    ]


def test_machine_opens_count_for_nothing() -> None:
    """Neither as an open nor as a cancel event."""
    setup = config(campaign={"trigger": {"cancel_on": ["Email Opened"]}, "when": "user.opens_total == 0"})
    machine = track("10:10", "m", "Email Opened", properties={"machine_open": True})
    human = track("10:10", "h", "Email Opened")
    assert play([track("10:00", "t1"), machine], setup=setup).sent == [("t1", "10:30:00")]
    assert play([track("10:00", "t1"), human], setup=setup).reasons == [["cancelled"]]


def test_a_goal_rewards_the_latest_send_of_its_campaign_once() -> None:
    """Each choice gets a correction by the goal's value; the same event again or a second purchase gives none."""
    setup = config(campaign={"goal": {"event": "Order Completed", "within": "72h", "value": "properties.revenue"}})
    buy = track("12:00", "buy", "Order Completed", properties={"revenue": 49.5})
    again = track("13:00", "buy2", "Order Completed", properties={"revenue": 5})
    played = play([track("10:00", "t1"), buy, buy, again], setup=setup)
    rows = [(e["policy"], e["correction"], e["reward"], e.get("delta")) for e in played.examples]
    posted = [
        ("cart/channel", False, 0.0, None),
        ("cart/send_time", False, 0.0, None),
        ("cart/subject", False, 0.0, None),
    ]
    assert rows == posted + [(policy, True, 49.5, 49.5) for policy, *_ in posted]


def test_a_goal_that_names_a_decision_rewards_no_other() -> None:
    """A decision id that is not known here is counted and credited to nobody."""
    setup = config(campaign={"goal": {"event": "Order Completed", "within": "72h"}})
    sent = play([track("10:00", "t1")], setup=setup).decisions[0]["decision_id"]
    for name, rewarded in ((sent, 3), ("of-somebody-else", 0)):
        buy = track("12:00", "buy", "Order Completed", properties={"decision_id": name})
        played = play([track("10:00", "t1"), buy], setup=setup)
        assert sum(example["correction"] for example in played.examples) == rewarded
        assert played.counts["unattributed_rewards_total",] == (not rewarded)


def test_a_late_reward_is_kept_and_counted() -> None:
    """After its window a goal rewards the decision it names, counted as late; without the name none."""
    setup = config(campaign={"goal": {"event": "Order Completed", "within": "1h"}})
    sent = play([track("10:00", "t1")], setup=setup).decisions[0]["decision_id"]
    for properties, rewarded in (({"decision_id": sent}, True), ({}, False)):
        played = play(
            [track("10:00", "t1"), track("14:00", "buy", "Order Completed", properties=properties)], setup=setup
        )
        assert [example["delta"] for example in played.examples if example["correction"]] == [1.0] * 3 * rewarded
        assert played.counts["late_rewards_total", "cart"] == rewarded


def test_addresses_stay_out_of_the_log_and_examples() -> None:
    """The address and the text are in `decisions` alone."""
    setup = config(campaign={"variants": {"subject": [{"id": "a", "text": "{{ user.email }}"}]}})
    played = play([track("10:00", "t1")], setup=setup)
    assert played.decisions[0]["content"]["subject"] == "u1@example.com"
    assert "example.com" not in str(played.log) + str(played.examples)


def test_without_personalization_consent_the_context_is_neutral() -> None:
    """Nothing personal is read for a choice."""
    refuse = identify("09:00", "i", traits={"consent": {"personalization": False}})
    views = [track("09:30", "v", "Product Viewed", properties={"price": 10})]
    assert play([*views, track("10:00", "t1")]).log[0]["context"] != {}
    assert play([refuse, *views, track("10:00", "t1")]).log[0]["context"] == {}


def test_without_personalization_consent_marketing_reads_nothing_of_the_person() -> None:
    """Variants and texts find of the person what they would of somebody unknown; a transactional text may name them."""
    known = identify("09:00", "i", traits={"first_name": "Ann", "consent": {"personalization": False}})
    order = track("09:30", "o", "Order Completed", properties={"revenue": 10})
    hello = "{{ user.first_name | default: 'you' }}, {{ user.orders_total }}"
    texts = [{"id": "all", "text": hello}, {"id": "buyers", "text": "again", "when": "user.orders_total > 0"}]
    said = {
        kind: play(
            [known, order, track("10:00", "t1")], setup=config(campaign={"kind": kind, "variants": {"subject": texts}})
        )
        for kind in ("marketing", "transactional")
    }
    assert said["marketing"].decisions[0]["content"]["subject"] == "you, 0"
    assert said["marketing"].log[0]["arms"]["subject"] == {"all": 1.0}
    assert len(said["transactional"].log[0]["arms"]["subject"]) == 2
    assert "you" not in str([one["content"] for one in said["transactional"].decisions])


def test_an_arm_that_cannot_be_rendered_sleeps() -> None:
    """Rendering comes before the draw: the other arm is drawn with probability 1."""
    texts = [{"id": "named", "text": "{{ event.properties.name }}"}, {"id": "plain", "text": "Hello"}]
    played = play([track("10:00", "t1")], setup=config(campaign={"variants": {"subject": texts}}))
    assert played.log[0]["arms"]["subject"] == {"plain": 1.0}
    assert played.decisions[0]["variants"] == {"subject": "plain"}
    assert played.log[0]["decided_at"] == at("10:30")
