"""The hour to send at: what is open, how it is chosen, that everything is checked again then, and what is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisioning import backtest, slots
from decisioning.config import Config
from decisioning.explain import explain
from decisioning.learning import Learning
from decisioning.plan import plans_of
from streams.recalling import recall_of
from tests.play import Played, at, config, identify, ms, play, track

GOAL = {"event": "Order Completed", "within": "72h"}


def setup(within: str = "6h", campaign: dict[str, Any] | None = None, **changes: Any) -> Config:
    """The usual campaign, due at once, with a window to send in."""
    more = {"trigger": {"delay": "0s", "per": "properties.cart_id"}, "send_time": {"within": within}, "goal": GOAL}
    return config(campaign=more | (campaign or {}), **changes)


def one(played: Played) -> dict[str, Any]:
    """The only decision."""
    assert len(played.log) == 1
    return played.log[0]


def test_before_anything_is_learned_all_open_hours_are_alike() -> None:
    """Now and the whole hours after it, by local weekday and hour, within the window; it fires at the one drawn."""
    entry = one(play([track("09:20", "m1")], setup=setup()))
    assert entry["arms"]["send_time"] == dict.fromkeys(
        ["now", "mon-10", "mon-11", "mon-12", "mon-13", "mon-14", "mon-15"], 1 / 7
    )
    arm = entry["slot"]["arm"]
    assert entry["propensity"]["send_time"] == 1 / 7
    assert entry["due_at"] == entry["slot"]["chosen_at"] == at("09:20")
    assert entry["fire_at"] == entry["decided_at"] == (at("09:20") if arm == "now" else at(f"{arm[-2:]}:00"))
    assert entry["joint_propensity"] == 1 / 7
    assert explain(entry).differences == ()


def test_every_hour_is_drawn() -> None:
    """Over many carts each of the seven comes, and each fires at its time."""
    events = [track("09:20", f"m{n}", properties={"cart_id": str(n)}) for n in range(60)]
    log = play(events, setup=setup()).log
    assert len({entry["slot"]["arm"] for entry in log}) == 7
    assert [entry["decided_at"] for entry in log] == sorted(entry["decided_at"] for entry in log)


@pytest.mark.parametrize(
    ("changes", "clock", "arms"),
    [
        ({"quiet_hours": {"from": "11:00", "to": "14:00"}}, "09:20", ["now", "mon-10", "mon-14", "mon-15"]),
        ({"quiet_hours": {"from": "09:00", "to": "11:30"}}, "09:20", ["mon-12", "mon-13", "mon-14", "mon-15"]),
        ({"campaign": {"expires_after": "2h"}}, "09:20", ["now", "mon-10", "mon-11"]),
        ({"campaign": {"send_time": {"within": "30m"}}}, "09:20", ["now"]),
        ({"timezone": "Asia/Kolkata"}, "09:20", ["now", "mon-15", "mon-16", "mon-17", "mon-18", "mon-19", "mon-20"]),
    ],
)
def test_only_open_hours_are_arms(changes: dict[str, Any], clock: str, arms: list[str]) -> None:
    """Quiet hours and what would come too late are no arms; hours are those of the person's clock."""
    assert list(one(play([track(clock, "m1")], setup=setup(**changes)))["arms"]["send_time"]) == arms


def test_an_hour_whose_caps_are_full_is_no_arm() -> None:
    """A message at 09:00 and at most one in three hours: from 12:00 on there is room, and there alone."""
    capped = setup(caps=[{"name": "c", "max": 1, "per": "3h"}], campaign={"send_time": {"within": "0h"}})
    memory = backtest.Memory()
    lines = [orjson.dumps(event) for event in (identify("08:00", "i"), track("09:00", "m1"))]
    assert sum(len(effects.decisions) for effects in backtest.run(capped, lines, ms("09:00"), memory)) == 1
    later = setup(caps=[{"name": "c", "max": 1, "per": "3h"}])
    second = [orjson.dumps(track("09:20", "m2", properties={"cart_id": "2"}))]
    log = [orjson.loads(r.value) for e in backtest.run(later, second, ms("23:00"), memory) for r in e.log]
    assert list(log[0]["arms"]["send_time"]) == ["mon-12", "mon-13", "mon-14", "mon-15"]
    assert log[0]["action"] == "send"


def _late() -> str:
    """A cart whose hour is not `now`."""
    events = [track("09:20", f"m{n}", properties={"cart_id": str(n)}) for n in range(10)]
    log = play(events, setup=setup()).log
    return next(str(e["trigger"]["message_id"]) for e in log if e["slot"]["arm"] in {"mon-12", "mon-13", "mon-14"})


@pytest.mark.parametrize(
    ("event", "reasons"),
    [
        (track("10:30", "x", "Order Completed"), ["cancelled"]),
        (track("10:30", "x", "Unsubscribed"), ["unsubscribed"]),
        (identify("10:30", "x", traits={"email": None}), ["no_address"]),
    ],
)
def test_everything_is_checked_again_then(event: dict[str, Any], reasons: list[str]) -> None:
    """Whatever happens between due and the hour counts as before due."""
    cart = _late()
    played = play([track("09:20", cart, properties={"cart_id": cart[1:]}), event], setup=setup())
    assert one(played)["reasons"] == reasons


def test_what_stands_against_it_for_good_is_decided_when_due() -> None:
    """Held out, or without an address: nobody waits hours to be told that."""
    cart = _late()
    trigger = track("09:20", cart, properties={"cart_id": cart[1:]})
    held = one(play([trigger], setup=setup(holdout={"share": 1.0})))
    assert (held["action"], held["decided_at"]) == ("holdout", at("09:20"))
    assert "slot" not in held
    gone = one(play([track("09:10", "x", "Unsubscribed"), trigger], setup=setup()))
    assert (gone["reasons"], gone["decided_at"]) == (["unsubscribed"], at("09:20"))


def test_a_restart_chooses_anew() -> None:
    """The delay begins again, and with it the window."""
    cart = _late()
    trigger = {"delay": "0s", "per": "properties.cart_id", "restart_on": ["Product Added"]}
    properties = {"cart_id": cart[1:]}
    events = [track("09:20", cart, properties=properties), track("10:20", "again", properties=properties)]
    entry = one(play(events, setup=setup(campaign={"trigger": trigger})))
    assert (entry["due_at"], entry["slot"]["chosen_at"]) == (at("10:20"), at("10:20"))
    assert list(entry["arms"]["send_time"])[-1] == "mon-16"


def test_a_persons_own_hours_are_known_unless_they_refused() -> None:
    """Opens at 13:00 on two days say something of 13:00, a little of its neighbours, and nothing to who refused."""
    opens = [track(clock, f"o{clock}", "Email Opened") for clock in ("+1d 13:10", "+2d 13:50")]
    entry = play([*opens, track("+3d 11:20", "m1")], until="+4d 00:00", setup=setup()).log[0]
    shares = entry["slot"]["shares"]
    assert max(shares, key=lambda arm: shares[arm]) == "thu-13"
    assert shares["thu-13"] == pytest.approx(2 * 0.25 / 4, abs=0.01)
    assert set(shares) == {"thu-13"}
    refused = identify("08:30", "r", traits={"consent": {"personalization": False}})
    entry = play([refused, *opens, track("+3d 11:20", "m1")], until="+4d 00:00", setup=setup()).log[0]
    assert entry["slot"]["shares"] == {}


def test_machine_opens_are_nobodys_hours() -> None:
    """A proxy opens at night; that is nobody's habit."""
    machine = track("13:10", "o", "Email Opened", properties={"machine_open": True})
    assert play([machine, track("+1d 11:20", "m1")], until="+2d 00:00", setup=setup()).log[0]["slot"]["shares"] == {}


def answering(count: int, learning: Learning | None) -> Played:
    """A cart every 24 minutes; who is written to at 12:00 or 13:00 orders, nobody else does."""
    played, queue = Played(), list[bytes]()
    seen: list[dict[str, Any]] = []

    def lines() -> Any:
        yield orjson.dumps(identify("00:00", "i"))
        for number in range(count):
            day, minutes = divmod(number * 24, 1440)
            clock = f"+{day + 1}d {minutes // 60}:{minutes % 60:02}"
            while queue:
                order = orjson.loads(queue.pop())
                yield orjson.dumps(order | {"timestamp": at(clock)})
            yield orjson.dumps(track(clock, f"m{number}", properties={"cart_id": str(number)}))
            for decision in played.decisions[len(seen) :]:
                seen.append(decision)
                if decision["decided_at"][11:13] in {"12", "13"}:
                    key = decision["decision_id"]
                    queue.append(
                        orjson.dumps(track("00:00", f"o{key}", "Order Completed", properties={"decision_id": key}))
                    )

    windowed = setup("24h", campaign={"trigger": {"delay": "0s", "per": "properties.cart_id", "cancel_on": []}})
    for effects in backtest.run(windowed, lines(), ms("+30d 00:00"), None, learning):
        played.decisions += [orjson.loads(record.value) for record in effects.decisions]
        played.log += [orjson.loads(record.value) for record in effects.log]
        played.examples += [orjson.loads(record.value) for record in effects.examples]
    return played


@pytest.fixture(scope="module")
def answered() -> Played:
    """Ten days of it, learned on the way."""
    return answering(600, Learning(plans_of(setup("24h"))))


def test_the_hour_that_brings_something_is_chosen_more_and_more(answered: Played) -> None:
    """Of 25 hours two are worth sending at; after some days most messages go out then."""
    before, after = list[bool](), list[bool]()
    for entry in answered.log:
        learned = after if "cart/send_time" in entry["model_versions"] else before
        learned.append(entry["decided_at"][11:13] in {"12", "13"})
    assert sum(before) < 0.3 * len(before)
    assert sum(after[-200:]) > 120


def test_hours_are_computed_again_from_the_model(answered: Played, tmp_path: Path) -> None:
    """Also though the choice was made hours before the decision, with the model of that moment."""
    path = tmp_path / "examples.jsonl"
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in answered.examples))
    chosen = [entry for entry in answered.log if "cart/send_time" in entry["model_versions"]]
    assert len(chosen) > 300
    for entry in chosen[::100]:
        explanation = explain(entry, None, recall_of(None, path))
        assert explanation.differences == ()
        assert any(said.startswith("send_time:") and "computed again" in said for said in explanation.sentences)


def test_an_example_says_what_was_known_of_its_hour(answered: Played) -> None:
    """One for each sent decision, its context the person's and the hour's."""
    examples = [r for r in answered.examples if r["policy"] == "cart/send_time" and not r["correction"]]
    assert len(examples) == len(answered.decisions)
    for example in examples[:50]:
        hour = example["arm"]
        known = {name for name in example["context"] if name.startswith("slot_")}
        assert ("slot_now" in known) == (hour == "now")
        assert hour == "now" or {f"slot_{hour[-2:]}", f"slot_{hour[:3]}"} <= known


@given(st.dictionaries(st.sampled_from([*slots.FEATURES, "x"]), st.floats()))
def test_a_row_is_finite_whatever_is_in_the_context(context: dict[str, float]) -> None:
    """NaN, infinities, negative and huge numbers."""
    row = slots.row_of(context)
    assert row.shape == (slots.DIM,)
    assert np.isfinite(row).all()


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_hours_are_distinct_where_clocks_are_changed(day: str) -> None:
    """In the gap of a spring night 02:00 is 03:00, in the fold of an autumn night the second 02:00 is passed over."""
    person = identify("00:00", "i") | {"timestamp": f"{day}T00:05:00.000Z"}
    lines = [orjson.dumps(event) for event in (person, track("00:00", "m1") | {"timestamp": f"{day}T00:10:00.000Z"})]
    berlin = setup("12h", timezone="Europe/Berlin")
    log = [orjson.loads(r.value) for e in backtest.run(berlin, lines, ms("+300d 00:00")) for r in e.log]
    arms = list(log[0]["arms"]["send_time"])
    assert len(set(arms)) == len(arms)
    assert arms[:3] == ["now", "sun-03", "sun-04"]
