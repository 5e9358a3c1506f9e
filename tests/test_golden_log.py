"""A recorded hour of a shop: the same events give the same bytes, in this release as in the one that recorded them.

A change here is a change of meaning for whoever replays a log. If it is meant: say so in the changelog, and record anew
with `decisioning backtest --config config.yaml --events events.jsonl --decisions … --log … --examples …`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from decisioning import backtest
from decisioning.config import load
from decisioning.explain import IncompleteError, explain
from decisioning.learning import Learning
from decisioning.plan import plans_of

SHOP = Path(__file__).parent / "golden" / "shop"
LEARNED = SHOP / "learned.jsonl"


@pytest.fixture(scope="module")
def played() -> dict[str, bytes]:
    """The three outputs of the recorded hour."""
    out: dict[str, list[bytes]] = {"decisions": [], "log": [], "examples": []}
    with (SHOP / "events.jsonl").open("rb") as lines:
        for effects in backtest.run(load((SHOP / "config.yaml").read_text()), lines):
            for name, values in out.items():
                values += [record.value + b"\n" for record in getattr(effects, name)]
    return {name: b"".join(values) for name, values in out.items()}


@pytest.mark.parametrize("name", ["decisions", "log", "examples"])
def test_the_recorded_hour_comes_out_byte_for_byte(played: dict[str, bytes], name: str) -> None:
    """Ids, draws, contexts, texts, order: everything."""
    assert played[name] == (SHOP / f"{name}.jsonl").read_bytes()


def test_every_choice_of_the_recorded_hour_is_recomputed_from_its_record(played: dict[str, bytes]) -> None:
    """`explain` finds no difference, and its probabilities are a distribution of which the joint is the product."""
    for line in played["log"].splitlines():
        record = orjson.loads(line)
        assert explain(record).differences == ()
        joint = 1.0
        for choice, arms in record["arms"].items():
            assert sum(arms.values()) == pytest.approx(1.0, abs=1e-12)
            assert min(arms.values()) > 0.0
            joint *= record["propensity"][choice]
        assert record["joint_propensity"] in (None, joint)


def test_a_record_that_was_changed_is_noticed(played: dict[str, bytes]) -> None:
    """Another arm than the one drawn does not pass for it."""
    sent = [orjson.loads(line) for line in played["log"].splitlines()]
    record = next(one for one in sent if len(one["arms"].get("subject", {})) == 2)
    other = next(arm for arm in record["arms"]["subject"] if arm != record["variants"]["subject"])
    forged = {**record, "variants": {"subject": other}}
    assert any("subject" in difference for difference in explain(forged).differences)


@pytest.fixture(scope="module")
def records(played: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """One record of each kind: sent with a choice of subjects, held out, suppressed, erased."""
    log = [orjson.loads(line) for line in played["log"].splitlines()]
    found = {one["action"]: one for one in log if one["campaign"] is not None}
    found["send"] = next(one for one in log if len(one["arms"].get("subject", {})) == 2)
    proof = {"campaign": None, "action": "suppress", "reasons": ["erased"], "decided_at": "2026-01-01T09:00:00.000Z"}
    return {**found, "erased": found["send"] | proof}


@pytest.mark.parametrize(
    ("action", "changes", "said"),
    [
        ("send", {"joint_propensity": 0.5}, "the joint propensity is "),
        ("send", {"joint_propensity": None}, "the joint propensity is "),
        ("suppress", {"joint_propensity": 0.5}, "the joint propensity is None, not 0.5"),
        ("send", {"arms": {"send_time": {"now": 0.5}}}, "send_time: the probabilities are not positive numbers adding"),
        ("send", {"arms": {"holdout": {"treatment": 1.0, "holdout": 0.0}}}, "holdout: the probabilities are not"),
        ("send", {"arms": {"holdout": {"treatment": 1e308, "holdout": 1e308}}}, "holdout: the probabilities are not"),
        ("send", {"propensity": {"send_time": 0.5}}, "send_time: the propensity is 1.0, not 0.5"),
        ("send", {"propensity": {"holdout": 0.01}}, "holdout: the propensity is "),
        ("send", {"experiment": {"group": "holdout"}}, "holdout: the group of this action is 'treatment'"),
        ("holdout", {"experiment": {"group": "treatment"}}, "holdout: the group of this action is 'holdout'"),
        ("send", {"random_draw": {"channel": 0.5}}, "channel: the number drawn is "),
    ],
)
def test_what_does_not_agree_within_a_record_is_noticed(
    records: dict[str, dict[str, Any]], action: str, changes: dict[str, Any], said: str
) -> None:
    """Probabilities, their product, numbers drawn, and the group a person is in."""
    record = copy.deepcopy(records[action])
    assert explain(record).differences == ()
    for name, value in changes.items():
        record[name] = record[name] | value if isinstance(value, dict) else value
    assert any(difference.startswith(said) for difference in explain(record).differences), explain(record).differences


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": "none"}, "Expected `object`, got `str` - at `$.arms`"),
        ({"arms": {}}, "arms has no 'channel'"),
        ({"channel": "fax"}, "the arms of 'channel' have no 'fax'"),
        ({"channel": None}, "the arms of 'channel' have no None"),
        ({"variants": {}}, "the arms of 'subject' have no None"),
        ({"propensity": {}}, "propensity has no 'holdout'"),
        ({"random_draw": {}}, "random_draw has no 'subject'"),
        ({"campaign": None}, "Expected `str`, got `null` - at `$.campaign`"),
    ],
)
def test_a_record_that_is_not_whole_says_what_it_lacks(
    records: dict[str, dict[str, Any]], changes: dict[str, Any], said: str
) -> None:
    """The first thing without which it cannot be explained."""
    with pytest.raises(IncompleteError) as caught:
        explain(records["send"] | changes)
    assert str(caught.value) == said


def _damaged(value: Any) -> Iterator[Any]:
    """The value with one part of it, at any depth, gone or of another type."""
    yield from (None, True, -1, 0.5, "x", [], ["x"], {}, {"x": "x"})
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        without = value.copy()
        del without[key]
        yield without
        for part in _damaged(value[key]):
            changed = value.copy()
            changed[key] = part
            yield changed


@pytest.mark.parametrize("action", ["send", "holdout", "suppress", "erased"])
def test_no_damage_to_a_record_is_an_error_of_the_program(records: dict[str, dict[str, Any]], action: str) -> None:
    """It is explained all the same, or said to be incomplete, in one line."""
    explain(records[action])
    said = set()
    for record in _damaged(records[action]):
        if isinstance(record, dict):
            try:
                explain(record)
            except IncompleteError as error:
                said.add(str(error))
    assert said
    assert all(line.isprintable() for line in said)


def learned() -> list[dict[str, Any]]:
    """Of the same hour, decided by what was learned on the way: what each decision was drawn from."""
    config = load((SHOP / "config.yaml").read_text().replace("algorithm: uniform", "algorithm: thompson"))
    with (SHOP / "events.jsonl").open("rb") as lines:
        steps = backtest.run(config, lines, learning=Learning(plans_of(config)))
        log = [orjson.loads(record.value) for effects in steps for record in effects.log]
    told = ("decision_id", "channel", "variants", "model_versions", "arms")
    return [{name: entry[name] for name in told} for entry in log if entry["action"] == "send"]


def test_what_is_learned_in_the_recorded_hour_comes_out_as_recorded() -> None:
    """To 1e-6: the last digits are the processor's. `python -m tests.test_golden_log` records it anew."""
    recorded = [orjson.loads(line) for line in LEARNED.read_bytes().splitlines()]
    found = learned()
    assert any(entry["model_versions"] for entry in found)
    for entry, expected in zip(found, recorded, strict=True):
        for choice, arms in expected.pop("arms").items():
            assert entry["arms"][choice] == pytest.approx(arms, abs=1e-6)
        del entry["arms"]
        assert entry == expected


if __name__ == "__main__":
    LEARNED.write_bytes(b"".join(orjson.dumps(entry) + b"\n" for entry in learned()))
