"""The record of what was not sent names the rule and the numbers, and `explain` says them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from decisioning.config import Config
from decisioning.explain import explain
from decisioning.schemas import LogEntry
from tests.play import at, config, identify, play, play_raw, track

SOON = {"trigger": {"delay": "0s"}}
PUSH = identify("09:00", "push", traits={"push_token": "tok"})
NIGHT = {"from": "21:00", "to": "08:00"}
GONE = {**track("09:00", "s", "Product Out of Stock", properties={"product_id": 7}), "userId": "product:7"}


def capped(**rule: Any) -> dict[str, Any]:
    """One cap and a campaign that decides at once."""
    return {"caps": [{"name": "few", **rule}], "campaign": SOON}


# what is configured, what happens, the fact without its reason, what a marketer reads
CASES: list[tuple[str, dict[str, Any], list[dict[str, Any]], dict[str, Any], str]] = [
    (
        "rule:no-minors",
        {"rules": [{"name": "no-minors", "when": "user.traits.age < 18"}]},
        [identify("09:00", "i", traits={"age": 12}), track("10:00", "t")],
        {"when": "user.traits.age < 18"},
        "rule:no-minors: user.traits.age < 18 holds.",
    ),
    (
        "not_eligible",
        {"campaign": {"when": "user.orders_total > 0"}},
        [track("10:00", "t")],
        {"when": "user.orders_total > 0"},
        "not_eligible: user.orders_total > 0 does not hold.",
    ),
    (
        "out_of_stock",
        {"campaign": {"requires_stock": "properties.product_id"}},
        [GONE, track("10:00", "t", properties={"product_id": 7})],
        {"product_id": "7"},
        "out_of_stock: product 7.",
    ),
    (
        "frequency_cap:few",
        capped(channel="any", max=2, per="24h"),
        [track("09:00", "a"), track("10:00", "b"), track("11:00", "t")],
        {"cap_channel": "any", "used": 2, "max": 2, "per": "1d", "room_at": at("+1d 09:00")},
        f"2 sends on any channel within 1d, at most 2 are allowed; there is room again at {at('+1d 09:00')}.",
    ),
    (
        "frequency_cap:few",
        capped(channel="any", max=0, per="1h"),
        [track("11:00", "t")],
        {"cap_channel": "any", "used": 0, "max": 0, "per": "1h"},
        "0 sends on any channel within 1h, at most 0 are allowed.",
    ),
    (
        "frequency_cap:few",
        capped(channel="email", max=1, per="day") | {"timezone": "Asia/Tokyo"},
        [track("09:00", "a"), track("11:00", "t")],
        {"channel": "email", "cap_channel": "email", "used": 1, "max": 1, "per": "day", "zone": "Asia/Tokyo"},
        "frequency_cap:few (email): 1 send on email this day in Asia/Tokyo, at most 1 are allowed.",
    ),
    (
        "fatigue",
        {"fatigue": {"half_life": "7d", "limit": 0.4}, "campaign": SOON},
        [track("09:00", "a"), track("11:00", "t")],
        {"fatigue": 0.5, "limit": 0.4, "half_life": "7d"},
        "fatigue: fatigue was 0.5, more than 0.4 (half-life 7d).",
    ),
    (
        "no_consent",
        {},
        [identify("09:30", "i", traits={"consent": {"email": False}}), track("10:00", "t")],
        {"channel": "email", "said_at": at("09:30")},
        f"no_consent (email): said at {at('09:30')}.",
    ),
    (
        "no_consent",
        {"consent": {"default": "denied"}},
        [track("10:00", "t")],
        {"channel": "email", "default": "denied"},
        "no_consent (email): the person said nothing, and consent is denied by default.",
    ),
    (
        "unsubscribed",
        {},
        [track("09:45", "u", "Unsubscribed"), track("10:00", "t")],
        {"channel": "email", "since": at("09:45")},
        f"unsubscribed (email): since {at('09:45')}.",
    ),
    (
        "unsubscribed",
        {},
        [identify("09:45", "i", traits={"unsubscribed": True}), track("10:00", "t")],
        {"channel": "email", "since": at("09:45")},
        f"unsubscribed (email): since {at('09:45')}.",
    ),
    (
        "hard_bounced",
        {},
        [track("09:45", "u", "Email Bounced", properties={"bounce_type": "hard"}), track("10:00", "t")],
        {"channel": "email", "since": at("09:45")},
        f"hard_bounced (email): since {at('09:45')}.",
    ),
    (
        "no_address",
        {"campaign": {"channels": ["push"]}},
        [track("10:00", "t")],
        {"channel": "push", "trait": "push_token"},
        "no_address (push): the trait push_token is not set.",
    ),
    (
        "expired",
        {"quiet_hours": NIGHT, "campaign": {"expires_after": "2h", **SOON}},
        [track("22:00", "t")],
        {
            "expires_after": "2h",
            "expires_at": at("+1d 00:00"),
            "quiet_hours": {
                "channel": "email", "from": "21:00", "to": "08:00", "zone": "UTC", "end_at": at("+1d 08:00"),
            },
        },
        f"quiet hours of email from 21:00 to 08:00 in UTC last until {at('+1d 08:00')}.",
    ),
    (
        "goal_reached",
        {"campaign": {"trigger": {"cancel_on": []}, "goal": {"event": "Order Completed", "within": "1h"}}},
        [track("10:00", "t"), track("10:10", "bought", "Order Completed")],
        {"message_id": "bought", "at": at("10:10")},
        f"goal_reached: by event bought at {at('10:10')}.",
    ),
]  # fmt: skip


def suppressed(setup: Config, events: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of the one decision not to send."""
    (entry,) = [entry for entry in play(events, until="+1d 09:00", setup=setup).log if entry["action"] == "suppress"]
    LogEntry.model_validate_json(orjson.dumps(entry))
    return entry


@pytest.mark.parametrize(
    ("reason", "setup", "events", "fact", "said"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)]
)
def test_a_suppression_names_the_rule_and_the_numbers(
    reason: str, setup: dict[str, Any], events: list[dict[str, Any]], fact: dict[str, Any], said: str
) -> None:
    """In the record as data, in `explain` as a sentence."""
    entry = suppressed(config(**setup), events)
    assert reason in entry["reasons"]
    assert entry["because"] == [{"reason": reason, **fact}]
    told = explain(entry)
    assert told.sentences[1].endswith(said)
    assert told.differences == ()


def test_a_cooldown_names_the_decision_it_counts_from() -> None:
    """Which one, when, and until when."""
    setup = config(campaign={"cooldown": "24h", **SOON})
    played = play([track("09:00", "a"), track("11:00", "t")], setup=setup)
    first, second = played.log
    (fact,) = second["because"]
    assert fact == {
        "reason": "cooldown", "cooldown": "1d", "last_decision_id": first["decision_id"],
        "last_at": at("09:00"), "ends_at": at("+1d 09:00"),
    }  # fmt: skip
    assert f"decision {first['decision_id']} was sent at {at('09:00')}" in str(explain(second))


def test_every_channel_has_its_own_facts() -> None:
    """In the order of the channels; `no_channel` is but their sum."""
    setup = config(campaign={"channels": ["email", "push"]})
    entry = suppressed(setup, [track("09:45", "u", "Unsubscribed"), track("10:00", "t")])
    assert entry["reasons"] == ["unsubscribed", "no_address", "no_channel"]
    assert [(fact["reason"], fact["channel"]) for fact in entry["because"]] == [
        ("unsubscribed", "email"),
        ("no_address", "push"),
    ]


def test_who_has_no_room_for_a_timer_is_told_apart() -> None:
    """From those whom the campaign's condition excludes."""
    setup = config(campaign={"trigger": {"per": "properties.n", "delay": "9h"}})
    events = [track("10:00", f"t{number}", properties={"n": number}) for number in range(201)]
    entry = suppressed(setup, events)
    assert entry["because"] == [{"reason": "not_eligible", "room_for": "timers", "max": 200}]
    assert "there was no room for more timers than 200" in str(explain(entry))


def test_what_is_sent_costs_no_facts() -> None:
    """There is nothing to say, and the record does not grow."""
    assert ["because" in entry for entry in play([PUSH, track("10:00", "t")]).log] == [False]


def test_a_cancelled_wait_names_the_event_and_what_could_have_been() -> None:
    """Its id and time, also where it was read before the trigger; of a campaign that is gone, that it is."""
    bought = track("10:10", "o", "Order Completed")
    fact = {"reason": "cancelled", "message_id": "o", "at": at("10:10"), "cancel_on": ["Order Completed"]}
    for events in ([track("10:00", "t"), bought], [bought, track("10:00", "t", receivedAt=at("10:11"))]):
        entry = suppressed(config(), events)
        assert entry["because"] == [fact]
        assert f"by event o at {at('10:10')}, one of Order Completed." in str(explain(entry))
    memory = play([track("10:00", "t")], until="10:01").memory
    (entry,) = play_raw([], setup=config(campaigns=[]), memory=memory).log
    assert entry["because"] == [{"reason": "cancelled", "cancel_on": None}]
    assert "its campaign is in the configuration no more" in str(explain(entry))


def test_facts_hold_no_address() -> None:
    """Whatever stands against a decision, the record has no address in it."""
    entry = suppressed(config(), [track("09:45", "u", "Unsubscribed"), track("10:00", "t")])
    assert "example.com" not in str(entry)


def held(share: float) -> Config:
    """A configuration with two holdouts."""
    return config(holdout={"share": share, "salt": "a"}, campaign={"holdout": {"share": 0.3, "salt": "b"}})


def test_the_holdout_is_recomputed_from_its_configuration() -> None:
    """The salted hash of the person, for both holdouts; another configuration is no proof."""
    setup = held(0.2)
    people = [f"p{number}" for number in range(30)]
    events = [event for p in people for event in (identify("09:00", f"i{p}", p), track("10:00", p, user=p))]
    log = play(events, setup=setup).log
    assert {entry["action"] for entry in log} == {"send", "holdout"}
    for entry in log:
        assert explain(entry, setup).differences == ()
        assert sum("held out below" in line for line in explain(entry, setup).audit) == 2
        assert "the configuration given is" in explain(entry, held(0.4)).differences[0]
        moved = {**entry, "user_id": next(o["user_id"] for o in log if o["action"] != entry["action"])}
        assert any("salted hash" in difference for difference in explain(moved, setup).differences)


def test_an_audit_has_every_field_and_every_draw() -> None:
    """All fields of the record, bounds of each arm, key and number of each draw, and the product."""
    texts = [{"id": name, "text": name} for name in "abc"]
    setup = config(campaign={"channels": ["email", "push"], "variants": {"subject": texts}})
    (entry,) = play([PUSH, track("10:00", "t")], setup=setup).log
    audit = "\n".join(explain(entry).audit)
    for name in entry:
        assert f"  {name}: " in audit
    for choice, number in entry["random_draw"].items():
        key = f"{entry['decision_id']}/{choice}"
        assert f"drawn from the key '{key}': {number!r}; logged: {number!r}" in audit
    assert f"= {entry['joint_propensity']!r}" in audit
    assert audit.count("has probability") == 2 + 1 + 3
