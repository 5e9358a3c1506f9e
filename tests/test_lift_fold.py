"""The live lift: order does not matter, room is bounded, and nothing bad gets in."""

from __future__ import annotations

import math
import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits import lift_fold
from bandits.lift import NOTHING, Count, rate_lift
from bandits.lift_fold import LiftFold
from bandits.snapshot import SnapshotError

TWO_GROUPS = (
    b'{"schema": 1, "kind": "lift", "versions": {}, "trials": [{"campaign": "c", "share": 0.5, "latest": "", "arms": ['
    b'%s, {"level": 0, "people": "", "decisions": "", "earned": {}}]}]}'
)


def example(unit: str, arm: Any = "treatment", share: Any = 0.8, **more: Any) -> dict[str, Any]:
    """An example of the choice between treatment and holdout."""
    record = {
        "schema": 1,
        "decision_id": unit,
        "policy": "cart/holdout",
        "arm": arm,
        "propensity": share if arm == "treatment" else 1.0 - share,
        "context": {"hour": 3.0},
        "reward": 0.0,
        "correction": False,
        "at": "2026-01-05T08:00:00.000Z",
    }
    return record | more


def earned(unit: str, delta: float, arm: str = "treatment", **more: Any) -> dict[str, Any]:
    """A correction."""
    return example(unit, arm, correction=True, delta=delta, reward=delta, **more)


def folded(*records: dict[str, Any]) -> LiftFold:
    """All of them, none refused."""
    fold = LiftFold()
    assert [fold.take(record) for record in records] == [None] * len(records)
    return fold


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(lift_fold.ARMS), st.integers(-3, 3)), max_size=30),
    st.randoms(use_true_random=False),
)
def test_neither_order_nor_delay_matters(said: list[tuple[int, str, int]], rng: random.Random) -> None:
    """The same examples and corrections in any order, also a correction before its example, end in the same bytes."""
    records = [example(f"d{unit}", arm) for unit, arm, _ in said] + [earned(f"d{u}", float(d), a) for u, a, d in said]
    first = folded(*records).to_bytes()
    rng.shuffle(records)
    assert folded(*records).to_bytes() == first


def test_a_person_counts_once_and_a_reward_taken_back_does_not() -> None:
    """By pseudonym where there is one; a refund undoes a conversion."""
    person = {"pseudonym": "k:1"}
    fold = folded(
        example("d1", **person),
        example("d2", **person),
        earned("d1", 40.0, **person),
        earned("d2", 1.0, **person),
        example("d3", "holdout"),
        earned("d3", 0.1, "holdout"),
        earned("d3", 0.2, "holdout"),
        earned("d3", -0.3, "holdout"),
    )
    trial = fold.trial("cart")
    assert trial is not None
    assert [group.count for group in trial.groups] == [Count(1, 1), Count(1, 0)]


def forgotten(unit: str, delta: float, arm: str = "treatment", **more: Any) -> dict[str, Any]:
    """What takes an example back."""
    return earned(unit, delta, arm, forget=True, **more)


@pytest.mark.parametrize("person", [{}, {"pseudonym": "k:1"}])
def test_who_is_forgotten_leaves_nothing_behind(person: dict[str, str]) -> None:
    """As if they had never been, whatever they had earned, and even if that is read before the example itself."""
    rest = [example("d9"), example("d8", "holdout"), earned("d8", 3.0, "holdout")]
    theirs = [example("d1", **person), example("d2", **person), earned("d1", 40.0, **person)]
    gone = [forgotten("d1", -40.0, **person), forgotten("d2", 0.0, **person)]
    without = folded(*rest).to_bytes()
    assert folded(*rest, *theirs).to_bytes() != without
    assert folded(*rest, *theirs, *gone).to_bytes() == without
    assert folded(*gone, *rest, *reversed(theirs)).to_bytes() == without


def test_it_says_what_the_counts_say() -> None:
    """Bounds of a campaign are those of `rate_lift`, with the error rate of the first level."""
    fold = folded(*(example(f"t{n}") for n in range(800)), *(example(f"h{n}", "holdout") for n in range(200)))
    for n in range(160):
        fold.take(earned(f"t{n}", 1.0))
    for n in range(10):
        fold.take(earned(f"h{n}", 1.0, "holdout"))
    assert fold.bounds("cart") == rate_lift(Count(800, 160), Count(200, 10), 0.8, 0.05 * 6 / math.pi**2).difference
    assert 0.0 < fold.bounds("cart").low < 0.15 < fold.bounds("cart").high
    assert fold.bounds("nobody") == NOTHING
    assert (fold.mismatch("cart"), fold.mismatch("nobody")) == (0.0, 0.0)
    for n in range(800):
        fold.take(example(f"more{n}", "holdout"))
    assert fold.mismatch("cart") == 1.0


def test_room_is_bounded_and_what_is_kept_is_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten times as many people as there is room for a fair sample is kept; sizes and rates stay about right."""
    monkeypatch.setattr(lift_fold, "MAX_PEOPLE", 512)
    records = [example(f"t{n}", share=0.9) for n in range(9000)] + [
        example(f"h{n}", "holdout", 0.9) for n in range(1000)
    ]
    records += [earned(f"t{n}", 1.0, share=0.9) for n in range(0, 9000, 5)]
    records += [earned(f"h{n}", 1.0, "holdout", share=0.9) for n in range(0, 1000, 10)]
    fold = folded(*records)
    trial = fold.trial("cart")
    assert trial is not None
    treated, held = trial.groups
    assert treated.level > held.level > 0
    assert all(256 * 0.8 < len(group.decisions) <= 512 for group in trial.groups)
    assert treated.people == pytest.approx(9000, rel=0.15)
    assert held.people == pytest.approx(1000, rel=0.15)
    level, kept = 1 + treated.level + held.level, 0.9 * 2.0 ** (held.level - treated.level)
    alpha = 0.05 * 6 / (math.pi * level) ** 2
    right = rate_lift(treated.count, held.count, kept / (kept + 0.1), alpha).difference
    assert (fold.bounds("cart").low, fold.bounds("cart").high) == pytest.approx((right.low, right.high))
    assert 0.1 in fold.bounds("cart")
    random.Random(1).shuffle(records)
    assert folded(*records).to_bytes() == fold.to_bytes()


def test_another_share_is_another_split() -> None:
    """Those of a smaller holdout are not compared with those of a larger one; late rewards still count."""
    old, new = {"at": "2026-01-05T08:00:00.000Z"}, {"at": "2026-02-05T08:00:00.000Z"}
    fold = folded(example("d1", **old), example("d2", share=0.5, **new), earned("d1", 1.0, **old))
    trial = fold.trial("cart")
    assert trial is not None
    assert (trial.share, trial.groups[0].count) == (0.5, Count(1, 0))
    for n, share in enumerate((0.6, 0.7)):
        fold.take(example(f"n{n}", share=share, at=f"2026-0{3 + n}-05T08:00:00.000Z"))
    assert fold.take(example("d1", **old)) is None
    assert len(orjson.loads(fold.to_bytes())["trials"]) == lift_fold.MAX_SHARES


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (earned("d", math.nan), "reward"),
        (earned("d", math.inf), "reward"),
        (example("d", reward=-math.inf), "reward"),
        (example("d", propensity=0.0), "propensity"),
        (example("d", propensity=1.5), "propensity"),
        (example("d", propensity=math.nan), "propensity"),
        (example("d", arm="control"), "arm"),
        (example("d", arm=None), "schema"),
        (example("d", decision_id=7), "schema"),
        (example("d", reward="1"), "schema"),
        ({"policy": "cart/holdout"}, "schema"),
    ],
)
def test_a_bad_example_changes_nothing(record: dict[str, Any], reason: str) -> None:
    """It is refused with its reason in one word."""
    fold = folded(example("d0"))
    before = fold.to_bytes()
    assert fold.take(record) == reason
    assert fold.to_bytes() == before


@pytest.mark.parametrize("policy", ["cart/subject", "/holdout", "holdout", 5, None])
def test_other_choices_are_passed_over(policy: Any) -> None:
    """Only the choice between treatment and holdout is folded."""
    fold = LiftFold()
    assert fold.take(example("d", policy=policy)) is None
    assert fold.campaigns() == []


def test_more_campaigns_than_there_is_room_for_are_refused() -> None:
    """And those that are there go on."""
    fold = LiftFold()
    reasons = [fold.take(example("d", policy=f"c{n}/holdout")) for n in range(lift_fold.MAX_CAMPAIGNS + 1)]
    assert reasons == [None] * lift_fold.MAX_CAMPAIGNS + ["campaigns"]
    assert fold.take(example("d2", policy="c0/holdout")) is None


def test_snapshots_come_back_whole_or_by_campaign() -> None:
    """A fold that is resumed goes on as one that was never interrupted, to the byte."""
    records = [example(f"d{n}", lift_fold.ARMS[n % 2], policy=f"c{n % 3}/holdout") for n in range(90)]
    records += [earned(f"d{n}", 1.5, lift_fold.ARMS[n % 2], policy=f"c{n % 3}/holdout") for n in range(0, 90, 7)]
    whole, first = folded(*records), folded(*records[:50])
    pieces = [first.to_bytes(name) for name in first.campaigns()]
    assert LiftFold.from_bytes(whole.to_bytes()).to_bytes() == whole.to_bytes()
    for resumed in (LiftFold.from_bytes(first.to_bytes()), LiftFold.from_bytes(*pieces)):
        for record in records[50:]:
            resumed.take(record)
        assert resumed.to_bytes() == whole.to_bytes()


def test_what_is_read_again_counts_once() -> None:
    """Where offsets are given: also after a snapshot that was taken in between."""
    records = [example("d0"), earned("d0", 2.0), example("d1", "holdout"), example("d2", policy="view/holdout")]
    fold = LiftFold()
    for offset, record in enumerate(records):
        fold.take(record, offset)
    resumed = LiftFold.from_bytes(fold.to_bytes("cart"), fold.to_bytes("view"))
    for offset, record in enumerate([*records, earned("d1", 1.0, "holdout")]):
        resumed.take(record, offset)
    fold.take(earned("d1", 1.0, "holdout"), 4)
    assert resumed.to_bytes() == fold.to_bytes()
    assert resumed.versions == {"cart": 5, "view": 4}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        b"[" * 5000,
        b'{"schema": 2, "kind": "lift", "versions": {}, "trials": []}',
        b'{"schema": 1, "kind": "arms", "versions": {}, "trials": []}',
        TWO_GROUPS.replace(b"0.5", b"1.5") % b'{"level": 0, "people": "", "decisions": "", "earned": {}}',
        TWO_GROUPS % b'{"level": 0, "people": "!", "decisions": "", "earned": {}}',
        TWO_GROUPS % b'{"level": 0, "people": "", "decisions": "", "earned": {"5": 1.0}}',
        TWO_GROUPS % b'{"level": 99, "people": "", "decisions": "", "earned": {}}',
    ],
)
def test_what_is_no_snapshot_is_refused_in_one_sentence(data: bytes) -> None:
    """Damaged, of another kind, or of a later release."""
    with pytest.raises(SnapshotError, match=r"^[^\n]+; \S"):
        LiftFold.from_bytes(data)
