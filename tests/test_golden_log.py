"""A recorded hour of a shop: the same events give the same bytes, in this release as in the one that recorded them.

A change here is a change of meaning for whoever replays a log. If it is meant: say so in the changelog, and record anew
with `decisioning backtest --config config.yaml --events events.jsonl --decisions … --log … --examples …`.
"""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from decisioning import backtest
from decisioning.config import load
from decisioning.explain import explain

SHOP = Path(__file__).parent / "golden" / "shop"


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
