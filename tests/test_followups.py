"""`Decision Sent`: who was written to is an event, so that another campaign may follow up."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from decisioning.backtest import Memory
from decisioning.config import Config, load
from decisioning.engine import Engine
from decisioning.explain import explain
from decisioning.followups import MAX_CHAIN
from tests.play import CONFIG, at, identify, play, play_raw, track
from tests.test_engine_laws import NOW_MS, Line

SUBJECTS = {"subject": [{"id": name, "text": f"Subject {name}"} for name in ("a", "b", "c")]}


def campaigns(*changed: dict[str, Any], **more: Any) -> Config:
    """A configuration of campaigns, each given by what it has beside channel and subjects."""
    usual = {"channels": ["email"], "variants": SUBJECTS}
    return load(json.dumps({**CONFIG, "campaigns": [usual | one for one in changed], **more}))


LAUNCH = {"id": "launch", "trigger": {"event": "Product Launched"}}
AGAIN: dict[str, Any] = {
    "id": "launch-again",
    "trigger": {
        "event": "Decision Sent",
        "where": "event.properties.campaign == 'launch'",
        "delay": "48h",
        "per": "properties.decision_id",
        "cancel_on": ["Email Opened", "Email Link Clicked"],
        "exclude_variants": "event.properties.variants",
    },
}
SETUP = campaigns(LAUNCH, AGAIN)
START = track("10:00", "t", "Product Launched")


def sent(setup: Config, *events: dict[str, Any], until: str = "+9d 00:00") -> list[tuple[str, str]]:
    """(campaign, time) of each decision to send."""
    return [(d["campaign"], d["decided_at"]) for d in play([START, *events], until=until, setup=setup).decisions]


def opened(clock: str, **properties: Any) -> dict[str, Any]:
    """An open of the launch's message."""
    launch = play([START], setup=SETUP).decisions[0]["decision_id"]
    return track(clock, f"open-{clock}", "Email Opened", properties={"decision_id": launch, **properties})


def test_who_does_not_open_gets_another_subject_after_the_delay() -> None:
    """The follow-up is due 48 hours after the decision, and never has the subject of the first message."""
    for number in range(20):
        played = play([{**START, "messageId": f"t{number}"}], until="+2d 10:00", setup=SETUP)
        first, second = played.decisions
        assert (second["campaign"], second["decided_at"]) == ("launch-again", at("+2d 10:00"))
        assert second["trigger"] == {
            "message_id": f"sent:{first['decision_id']}", "event": "Decision Sent", "at": first["decided_at"],
        }  # fmt: skip
        assert first["variants"]["subject"] != second["variants"]["subject"]
        assert played.log[1]["asleep"] == {"subject": {first["variants"]["subject"]: "excluded"}}
        assert set(played.log[1]["arms"]["subject"].values()) == {0.5}
        assert explain(played.log[1]).differences == ()


@pytest.mark.parametrize(
    ("event", "campaigns_sent"),
    [
        (opened("12:00"), ["launch"]),
        (opened("12:00", machine_open=True), ["launch", "launch-again"]),
        (opened("12:00", decision_id="of-another-message"), ["launch", "launch-again"]),
        (track("12:00", "open", "Email Opened"), ["launch"]),  # it names no decision: any of the person's
        (opened("+2d 10:01"), ["launch", "launch-again"]),  # too late
    ],
)
def test_a_human_open_of_that_message_cancels(event: dict[str, Any], campaigns_sent: list[str]) -> None:
    """A machine's open does not, nor that of another message."""
    assert [campaign for campaign, _ in sent(SETUP, event)] == campaigns_sent


def test_an_open_on_the_anonymous_side_cancels_too() -> None:
    """Whatever id it comes under, it is the same person's."""
    merged = identify("11:00", "i", anonymousId="device")
    assert sent(SETUP, merged, {**opened("12:00"), "userId": None, "anonymousId": "device"}) == [
        ("launch", at("10:00"))
    ]


def test_rules_and_texts_read_what_was_sent() -> None:
    """Campaign, channel, variants, decision and chain."""
    texts = "{{ event.properties.campaign }} {{ event.properties.channel }} {{ event.properties.variants.subject }}"
    more = " {{ event.properties.decision_id }} {{ event.properties.chain | join: ',' }} {{ user.sends_total }}"
    setup = campaigns(LAUNCH, {**AGAIN, "variants": {"subject": [{"id": "x", "text": texts + more}]}})
    first, second = play([START], until="+3d 00:00", setup=setup).decisions
    told = f"launch email {first['variants']['subject']} {first['decision_id']} launch 1"
    assert second["content"]["subject"] == told


def test_what_was_not_sent_is_no_event() -> None:
    """Neither a suppressed nor a held-out decision is followed up."""
    assert sent(campaigns({**LAUNCH, "when": "user.orders_total > 0"}, AGAIN)) == []
    assert sent(campaigns({**LAUNCH, "holdout": {"share": 1}}, AGAIN)) == []


def test_a_campaign_that_was_sent_may_cancel_another() -> None:
    """Of two that are due at the same moment the second is told of the first, in the same step."""
    other = {"id": "other", "trigger": {"event": "Product Launched", "cancel_on": ["Decision Sent"]}}
    played = play([START], setup=campaigns(LAUNCH, other))
    assert [d["campaign"] for d in played.decisions] == ["launch"]
    assert played.log[1]["campaign"] == "other"
    assert played.log[1]["cancelled_by"] == f"sent:{played.decisions[0]['decision_id']}"


def test_a_campaign_that_was_sent_may_postpone_another() -> None:
    """A timer that was due at the same moment and is restarted waits anew."""
    other = {"id": "other", "trigger": {"event": "Product Launched", "delay": "1h", "restart_on": ["Decision Sent"]}}
    launch = {"id": "launch", "trigger": {"event": "Product Launched", "delay": "1h"}}
    assert sent(campaigns(launch, other)) == [("launch", at("11:00")), ("other", at("12:00"))]


def follow(name: str, delay: str = "0s", **more: Any) -> dict[str, Any]:
    """A campaign that follows up whatever is sent."""
    return {"id": name, "trigger": {"event": ["Product Launched", "Decision Sent"], "delay": delay, **more}}


@pytest.mark.parametrize("delay", ["0s", "1h"])
def test_campaigns_that_trigger_each_other_end(delay: str) -> None:
    """No campaign is triggered by what it led to; one whose timer is pending is not triggered again, as ever."""
    answer = {"id": "answer", "trigger": {"event": "Decision Sent", "delay": delay}}
    assert [name for name, _ in sent(campaigns(follow("one", delay), answer))] == ["one", "answer"]
    assert [name for name, _ in sent(campaigns(follow("one", delay), follow("two", delay)))] == ["one", "two", "one"]


def test_a_campaign_does_not_follow_itself_up() -> None:
    """Without any condition it would write for ever."""
    assert len(sent(campaigns(follow("one")))) == 1


def test_a_chain_has_an_end_however_many_campaigns_there_are() -> None:
    """The message of the last campaign of the longest chain causes nothing more."""
    names = [f"c{number}" for number in range(MAX_CHAIN + 3)]
    chained = [
        {"id": name, "trigger": {"event": "Decision Sent", "where": f"event.properties.campaign == '{before}'"}}
        for before, name in zip(["launch", *names], names, strict=False)
    ]
    assert [name for name, _ in sent(campaigns(LAUNCH, *chained))] == ["launch", *names[: MAX_CHAIN - 1]]


def test_follow_ups_are_byte_for_byte_the_same_again() -> None:
    """Ids and draws are functions of the decision that came before."""
    played = [play([START], until="+3d 00:00", setup=SETUP) for _ in range(2)]
    assert played[0].log == played[1].log
    assert len({d["decision_id"] for d in played[0].decisions}) == 2


def test_a_configuration_without_follow_ups_keeps_nothing_of_what_was_sent() -> None:
    """No timer, no profile entry: an event that means nothing to a campaign does not touch a person."""
    with_it, without = (play([START], setup=setup).memory.profiles["u1"] for setup in (SETUP, campaigns(LAUNCH)))
    assert b"Decision Sent" in with_it
    assert b"Decision Sent" not in without


def test_the_event_happens_in_the_step_that_decides() -> None:
    """The step's effects hold decision and timer together, so that a crash leaves both or neither."""
    engine, held = Engine(SETUP), Memory()
    events = [orjson.dumps(event) for event in (identify("09:00", "i"), START)]
    batch = engine.decode([Line(event) for event in events])
    batch.fire_until_ms = NOW_MS
    while missing := engine.reads(held.state, batch):
        held.rows.add_new(sorted(missing))
    effects = engine.step(held.state, batch, NOW_MS)
    assert len(effects.decisions) == 1
    assert effects.due == {"u1": NOW_MS + 48 * 3_600_000}


def test_such_an_event_from_outside_counts_like_any_other() -> None:
    """Whoever replays what another system sent can have it followed up; a chain that is none is no chain."""
    for chain in (None, "launch", ["launch", 3], {"a": "b"}):
        outside = track("10:00", "x", "Decision Sent", properties={"campaign": "launch", "chain": chain})
        played = play_raw([identify("09:00", "i"), outside], until="+3d 00:00", setup=SETUP)
        assert [d["campaign"] for d in played.decisions] == ["launch-again"]
