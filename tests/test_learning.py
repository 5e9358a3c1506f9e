"""Learning in the decision: probabilities from what was learned, exactly those drawn from, again and again."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.arms import ArmModel
from bandits.linear import LinearModel
from bandits.ready import ReadyPolicy
from bandits.snapshot import SnapshotError
from decisioning import backtest, contexts, slots
from decisioning.config import Config
from decisioning.effects import Outgoing
from decisioning.explain import explain
from decisioning.learning import Learned, Learning, learner_of
from decisioning.plan import plans_of
from streams.recalling import recall_of
from tests.play import Played, at, config, identify, ms, track

SUBJECTS = [{"id": name, "text": name.upper()} for name in ("a", "b", "c")]
WORTH = {"a": 0.02, "b": 0.5, "c": 0.02}
PEOPLE = 50


def setup(**policy: Any) -> Config:
    """Three subjects on two channels, decided at once, with an order as goal."""
    campaign = {
        "trigger": {"delay": "0s", "per": "properties.cart_id"},
        "channels": ["email", "push"],
        "variants": {"subject": SUBJECTS},
        "goal": {"event": "Order Completed", "within": "72h"},
        "policy": policy,
    }
    return config(campaign=campaign)


def campaign_of(count: int, config: Config, learning: Learning | None, until: str = "23:00") -> Played:
    """A message a minute; who got `b` orders half of the time, a few minutes later, others hardly ever."""
    played, memory = Played(), backtest.Memory()
    answers: list[tuple[int, bytes]] = []

    def lines() -> Any:
        for number in range(PEOPLE):
            traits = {"email": f"{number}@example.com", "push_token": str(number)}
            yield orjson.dumps(identify("08:00", f"i{number}", f"u{number}", traits=traits))
        for number in range(count):
            while answers and answers[0][0] <= number:
                yield answers.pop(0)[1]
            clock = f"{9 + number // 60}:{number % 60:02}"
            properties = {"cart_id": str(number)}
            yield orjson.dumps(track(clock, f"m{number}", user=f"u{number % PEOPLE}", properties=properties))
            for decision in played.decisions[len(seen) :]:
                seen.append(decision)
                key = decision["decision_id"]
                if int(key[:8], 16) / 2**32 < WORTH[decision["variants"]["subject"]]:
                    clock = f"{9 + (number + 5) // 60}:{(number + 5) % 60:02}"
                    order = track(clock, f"o{number}", "Order Completed", decision["user_id"])
                    answers.append((number + 5, orjson.dumps(order | {"properties": {"decision_id": key}})))

    seen: list[dict[str, Any]] = []
    for effects in backtest.run(config, lines(), ms(until), memory, learning):
        played.decisions += [orjson.loads(record.value) for record in effects.decisions]
        played.log += [orjson.loads(record.value) for record in effects.log]
        played.examples += [orjson.loads(record.value) for record in effects.examples]
        played.counts += effects.counts
    return played


@pytest.fixture(scope="module")
def learned() -> Played:
    """A campaign of 400 messages that learned on its way."""
    return campaign_of(400, setup(), Learning(plans_of(setup())))


def test_the_better_subject_is_sent_more_and_more(learned: Played) -> None:
    """Half of those who get it order, of the others one in fifty: soon nearly everybody gets it.

    The answers are a hash of the decision's id, so this comes out the same each time.
    """
    subjects = [decision["variants"]["subject"] for decision in learned.decisions]
    assert len(subjects) == 400
    assert Counter(subjects[:40])["b"] < 30
    assert Counter(subjects[-100:])["b"] > 75


def test_probabilities_are_those_that_were_drawn_from(learned: Played) -> None:
    """Of every decision: positive, adding to 1 over the eligible arms, none below its share of exploring."""
    named = set()
    for entry in learned.log:
        for arms in entry["arms"].values():
            assert sum(arms.values()) == pytest.approx(1.0, abs=1e-9)
            assert min(arms.values()) >= 0.05 / len(arms) - 1e-12
        assert explain(entry).differences == ()
        named |= set(entry["model_versions"])
        assert ("policy" in entry) == bool(entry["model_versions"])
    assert named == {"cart/channel", "cart/subject"}
    assert learned.log[-1]["policy"] == {"algorithm": "thompson", "explore": 0.05}


def test_before_the_first_outcome_nothing_is_preferred(learned: Played) -> None:
    """Messages without an answer teach nothing: choices are as they are without learning, and name no model."""
    first = next(n for n, entry in enumerate(learned.log) if entry["model_versions"])
    assert first >= 5
    for entry in learned.log[:first]:
        assert entry["arms"]["subject"] == dict.fromkeys("abc", 1 / 3)
        assert entry["arms"]["channel"] == {"email": 0.975, "push": 0.025}


def test_it_is_deterministic_to_the_byte(learned: Played) -> None:
    """The same input gives the same records, and the same snapshots."""
    learning = Learning(plans_of(setup()))
    again = campaign_of(400, setup(), learning)
    assert (again.log, again.examples) == (learned.log, learned.examples)
    other = Learning(plans_of(setup()))
    campaign_of(400, setup(), other)
    assert learning.snapshots() == other.snapshots()


def test_without_learning_nothing_changes() -> None:
    """And a campaign whose algorithm is `uniform` asks no model."""
    for played in (campaign_of(60, setup(), None), campaign_of(60, setup(algorithm="uniform"), _learning("uniform"))):
        assert all(entry["model_versions"] == {} for entry in played.log)
        assert all(entry["arms"]["subject"] == dict.fromkeys("abc", 1 / 3) for entry in played.log)


def _learning(algorithm: str) -> Learning:
    return Learning(plans_of(setup(algorithm=algorithm)))


def test_every_probability_is_computed_again_from_the_model_that_is_named(learned: Played, tmp_path: Path) -> None:
    """From as many examples as the version says; a forged probability is noticed."""
    examples = tmp_path / "examples.jsonl"
    examples.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in learned.examples))
    recall = recall_of(None, examples)
    for entry in learned.log[60::60]:
        assert explain(entry, None, recall).differences == ()
        assert sum("computed again from it" in said for said in explain(entry, None, recall).sentences) == 2
    entry = learned.log[-1]
    arms = entry["arms"]["subject"]
    forged = {**entry, "arms": {**entry["arms"], "subject": {**arms, "a": arms["a"] + 1e-9, "c": arms["c"] - 1e-9}}}
    assert any("subject: the model gives" in said for said in explain(forged, None, recall).differences)


def test_a_model_whose_examples_age_is_learned_again(tmp_path: Path) -> None:
    """The record says after how long an example counts half, since the examples do not."""
    chosen = setup(half_life="90m")
    played = campaign_of(120, chosen, Learning(plans_of(chosen)))
    examples = tmp_path / "examples.jsonl"
    examples.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in played.examples))
    again = explain(played.log[-1], None, recall_of(None, examples))
    assert sum("computed again from it" in said for said in again.sentences) == 2
    assert again.differences == ()


def test_a_model_that_is_not_found_is_said_to_be_missing(learned: Played, tmp_path: Path) -> None:
    """What is not there is no difference, but it is not passed over either."""
    empty = tmp_path / "none.jsonl"
    empty.write_bytes(b"")
    said = explain(learned.log[-1], None, recall_of(empty, None)).sentences
    assert sum("was not found" in sentence for sentence in said) == 2


@pytest.mark.parametrize("policy", [{}, {"half_life": "3h"}, {"horizon": 300}, {"algorithm": "squarecb"}])
def test_a_snapshot_answers_as_the_model_it_was_made_of(policy: dict[str, Any]) -> None:
    """What a worker decides from is the snapshot, what a backtest decides from is the model: the same to the bit."""
    chosen = setup(**policy)
    plan, learning = plans_of(chosen)["cart"], Learning(plans_of(chosen))
    played = campaign_of(80, chosen, learning)
    snapshots = dict(Learned.of(value) for value in learning.snapshots().values())
    assert snapshots.keys() == {"cart/channel", "cart/send_time", "cart/subject"}
    played_context = played.log[-1]["context"]
    for name, arms in (("cart/subject", list("abc")), ("cart/channel", ["email", "push"])):
        live, kept = learning._learner.model(name), snapshots[name].ready(plan.spec)
        assert isinstance(live, ArmModel)
        assert isinstance(kept, ReadyPolicy)
        x = contexts.vector_of(played_context)
        answers = [one.probabilities(arms, x).tolist() for one in (live.ready(plan.spec), kept)]
        assert answers[0] == answers[1]


def test_a_snapshot_of_other_numbers_is_refused() -> None:
    """Of another layout of the context, damaged, or none at all: one sentence, and no model."""
    learning = Learning(plans_of(setup()))
    campaign_of(30, setup(), learning)
    value = learning.snapshots()["cart/subject"]
    for broken in (value.replace(b'"context_version":1', b'"context_version":99'), value[:-40], b"", b"{}"):
        with pytest.raises(SnapshotError) as refused:
            Learned.of(broken)
        assert str(refused.value).isprintable()


# Statistics do not depend on order and delay


def _examples(rng: np.random.Generator, count: int) -> list[list[dict[str, Any]]]:
    """Examples of two arms, each with up to three outcomes."""
    found: list[list[dict[str, Any]]] = []
    for number in range(count):
        context = {"view_7d": float(rng.integers(0, 9)), "fatigue": float(rng.random())}
        base = {"schema": 1, "decision_id": f"d{number}", "policy": "cart/subject", "arm": "ab"[number % 2]}
        base |= {"propensity": 0.5, "context": context}
        sent = at(f"{9 + number // 60}:{number % 60:02}")
        found.append([{**base, "reward": 0.0, "correction": False, "at": sent}])
        for _ in range(int(rng.integers(0, 3))):
            delta = float(rng.normal())
            more = {"reward": delta, "delta": delta, "correction": True, "at": at("22:00"), "sent_at": sent}
            found[-1].append(base | more)
    return found


def _folded(records: list[dict[str, Any]], **policy: Any) -> tuple[ArmModel, np.ndarray[Any, Any]]:
    plans = plans_of(setup(**policy))
    learner = learner_of(plans)
    for offset, record in enumerate(records):
        learner.take(orjson.dumps(record), offset)
    assert not learner.refused
    model = learner.model("cart/subject")
    assert isinstance(model, ArmModel)
    x = contexts.vector_of({"view_7d": 3.0, "fatigue": 0.5})
    return model, model.ready(plans["cart"].spec).probabilities(["a", "b"], x)


@given(st.integers(0, 2**32 - 1), st.sampled_from([{}, {"half_life": "2h"}, {"horizon": 500}]))
@settings(max_examples=20, deadline=None)
def test_any_order_and_delay_of_outcomes_ends_in_the_same_probabilities(seed: int, policy: dict[str, Any]) -> None:
    """Outcomes at once, much later, shuffled, or summed up in the example itself: the same to 1e-9."""
    rng = np.random.default_rng(seed)
    histories = _examples(rng, 40)
    firsts = [history[0] for history in histories]
    later = [record for history in histories for record in history[1:]]
    shuffled = [later[i] for i in rng.permutation(len(later))]
    batch = [first | {"reward": math.fsum(r["delta"] for r in rest)} for first, *rest in histories]
    at_once = [record for history in histories for record in history]
    _, expected = _folded(batch, **policy)
    for records in (at_once, [*firsts, *shuffled]):
        _, found = _folded(records, **policy)
        assert found == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(0, 39))
@settings(max_examples=20, deadline=None)
def test_what_is_forgotten_was_never_learned(seed: int, whom: int) -> None:
    """After an erasure the probabilities are those of everybody else, to 1e-9."""
    rng = np.random.default_rng(seed)
    histories = _examples(rng, 40)
    gone = histories[whom]
    total = math.fsum(record["reward"] for record in gone)
    sent_at = gone[0]["at"]
    forget = gone[0] | {"reward": -total, "delta": -total, "correction": True, "forget": True, "sent_at": sent_at}
    everybody = [record for history in histories for record in history]
    others = [record for history in histories if history is not gone for record in history]
    _, found = _folded([*everybody, forget])
    _, expected = _folded(others)
    assert found == pytest.approx(expected, abs=1e-9)


def _record(number: int, reward: float = 0.0, policy: str = "cart/subject", **more: Any) -> bytes:
    record = {"schema": 1, "decision_id": f"d{number}", "policy": policy, "arm": "a", "propensity": 0.5}
    record |= {"context": {"slot_09": 1.0}, "reward": reward, "correction": False, "at": at("09:00")}
    return orjson.dumps(record | more)


def _correction(number: int, delta: float, policy: str = "cart/subject", **more: Any) -> bytes:
    return _record(number, delta, policy, correction=True, delta=delta, sent_at=at("09:00"), **more)


def test_an_outcome_is_a_correction_by_something() -> None:
    """Not what a message cost, not an order worth nothing, not what is taken back."""
    learner = learner_of(plans_of(setup()))
    records = [
        _record(0, -0.5),
        _record(1),
        _correction(0, 0.0),
        _correction(0, 2.0),
        _correction(0, -1.5, forget=True),
    ]
    found = []
    for offset, record in enumerate(records):
        learner.take(record, offset)
        found.append(learner.outcomes["cart/subject"])
    assert found == [0, 0, 0, 1, 1]


def test_hours_are_forgotten_too() -> None:
    """The one model of all hours has an example taken out of it as the models of named arms have."""
    campaign = {"send_time": {"within": "24h"}, "goal": {"event": "Order Completed", "within": "72h"}}
    plans = plans_of(config(campaign=campaign))
    others = [_record(n, policy="cart/send_time", context={f"slot_{n:02}": 1.0}) for n in range(8, 16)]
    others += [_correction(n, n / 8, "cart/send_time", context={f"slot_{n:02}": 1.0}) for n in range(8, 16)]
    gone = [_record(0, policy="cart/send_time"), _correction(0, 2.0, "cart/send_time")]
    rows = np.eye(slots.DIM)[11:14]  # 08:00 to 10:00
    found = []
    for records in (others, [*gone, *others, _correction(0, -2.0, "cart/send_time", forget=True)]):
        learner = learner_of(plans)
        for offset, record in enumerate(records):
            learner.take(record, offset)
        model = learner.model("cart/send_time")
        assert isinstance(model, LinearModel)
        assert not learner.refused
        found.append(model.ready(plans["cart"].spec).probabilities(rows).tolist())
    assert found[0] == pytest.approx(found[1], abs=1e-9)


def test_an_answer_stays_what_its_version_says() -> None:
    """What was asked once answers the same until it is replaced; what was not asked goes with its model."""
    learning, spec = Learning(plans_of(setup())), plans_of(setup())["cart"].spec
    learned = learning.models.of
    learning.take([Outgoing(None, _record(number)) for number in range(200)])
    learning.take([Outgoing(None, _correction(0, 1.0))])
    asked = learned("cart/subject")
    assert asked is not None
    assert asked.version == 201  # nobody had asked before the outcome
    asked.ready(spec)
    learning.take([Outgoing(None, _record(200))])
    assert learned("cart/subject") is asked  # one more example of two hundred that brought nothing
    learning.take([Outgoing(None, _correction(1, 1.0))])
    renewed = learned("cart/subject")
    assert renewed is not None
    assert (renewed.version, renewed.outcomes) == (203, 2)  # an outcome counts with the next decision
    learning.take([Outgoing(None, _record(201))])
    unasked = learned("cart/subject")
    assert unasked is not None
    assert unasked.version == 204


# The context


@given(st.dictionaries(st.sampled_from([*contexts.FEATURES, "sent_0_30d", "opened_1_30d", "x"]), st.floats()))
def test_a_context_is_finite_and_bounded_whatever_is_in_it(context: dict[str, float]) -> None:
    """NaN, infinities, negative and huge numbers, names nobody knows."""
    vector = contexts.vector_of(context)
    assert vector.shape == (contexts.WIDTH,)
    assert np.isfinite(vector).all()
    assert np.abs(vector).max() < 12


def test_who_is_unknown_is_neutral() -> None:
    """No consent, no context: zeros."""
    assert not contexts.vector_of({}).any()


@pytest.mark.parametrize(
    ("agent", "family"),
    [
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1 Version/18.1 Mobile/15E148",
            "mobile",
        ),
        ("Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/131.0 Mobile Safari/537.36", "mobile"),
        ("Mozilla/5.0 (Linux; Android 14; SM-X210) AppleWebKit/537.36 Chrome/131.0 Safari/537.36", "tablet"),
        ("Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1 Version/17.5 Mobile/15E148", "tablet"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:133.0) Gecko/20100101 Firefox/133.0", "desktop"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.1 Safari/605.1", "desktop"),
        ("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 Chrome/131.0 Safari/537.36", "desktop"),
        ("curl/8.5.0", None),
        ("", None),
        ("\0" * 100_000, None),
    ],
)
def test_the_family_of_a_device(agent: str, family: str | None) -> None:
    """Browsers of today, and what is no browser."""
    assert contexts.device_of(agent) == family


def test_the_latest_device_and_the_local_hour_are_in_the_context() -> None:
    """Of the latest event in event time; what becomes of a message says nothing of it; nothing without consent."""
    phone, desktop = {"userAgent": "… iPhone … Mobile"}, {"userAgent": "… Windows NT 10.0 …"}
    events = [
        identify("08:00", "i", traits={"email": "u1@example.com", "timezone": "Asia/Tokyo"}),
        track("09:00", "m1", context=phone),
        track("08:59", "m2", context=desktop),
        track("09:00", "x", "Email Opened", context=desktop),
    ]
    found = _context(events)
    assert {name: value for name, value in found.items() if name.startswith(("device", "hour", "week"))} == {
        "device_mobile": 1.0,
        "hour_sin": -1.0,  # 18:00 in Tokyo
    }
    refused = identify("08:01", "i2", traits={"consent": {"personalization": False}})
    assert _context([events[0], refused, *events[1:]]) == {}


def _context(events: list[dict[str, Any]]) -> dict[str, float]:
    lines = [orjson.dumps(event) for event in events]
    log = [orjson.loads(r.value) for effects in backtest.run(config(), lines, ms("12:00")) for r in effects.log]
    context: dict[str, float] = log[-1]["context"]
    return context
