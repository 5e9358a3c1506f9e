"""Propensity models: they predict better than a person's own rate, say so honestly, and are stored as data."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import math
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bandits import propensity_forest, propensity_progress, propensity_state
from bandits.propensity import EPSILON, INTERCEPT_RATE, LEARNING_RATE, STRENGTHS, PropensityModel
from bandits.propensity_forest import HALF, RING, Forest, exported
from bandits.propensity_progress import Progress, lower_bound
from bandits.propensity_score import BLEND, LINEAR, MEMBERS, RATE, Scorer, sigmoid
from bandits.snapshot import SnapshotError
from tests.letters import WIDTH, newsletter
from tests.services import ROOT


def learned(x: NDArray[np.float64], y: NDArray[np.bool_]) -> PropensityModel:
    model = PropensityModel(x.shape[1])
    model.learn(x, y)
    return model


@pytest.fixture(scope="module")
def reader() -> PropensityModel:
    """A model that has learned one newsletter."""
    return learned(*newsletter(1))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_champion_beats_the_smoothed_rate(seed: int) -> None:
    """On very different readers, by log-loss and AUC of predictions made before learning; calibrated to 0.01.

    Three fixed streams of 25,000 letters each.
    """
    model = learned(*newsletter(seed))
    champion, progress = model.members.champion, model.progress
    assert MEMBERS[champion] == "blend"
    assert progress.log_loss(champion) < progress.log_loss(RATE) - 0.008
    assert progress.auc(champion) > progress.auc(RATE) + 0.008
    assert progress.calibration_error(champion) <= 0.01


def test_the_champion_beats_the_rate_of_rare_clicks() -> None:
    """The same where one letter in twenty is answered."""
    model = learned(*newsletter(4, base=-3.5, spread=1.2))
    champion, progress = model.members.champion, model.progress
    assert progress.log_loss(champion) < progress.log_loss(RATE)
    assert progress.auc(champion) > progress.auc(RATE)
    assert progress.calibration_error(champion) <= 0.01


def test_purchases_of_online_shoppers_are_predicted() -> None:
    """On real sessions, of people never seen before, the model is better than the base rate so far."""
    with gzip.open(ROOT / "tests" / "data" / "online_shoppers" / "sample.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    numbers = ("Administrative", "Informational", "ProductRelated", "ProductRelated_Duration", "SpecialDay")
    x = np.array(
        [
            [0.0, 0.0]
            + [math.log1p(float(row[name])) for name in numbers]
            + [float(row["BounceRates"]) * 10, float(row["ExitRates"]) * 10, float(row["Weekend"] == "TRUE")]
            + [float(row["VisitorType"] == "New_Visitor"), float(row["Month"] == "Nov"), float(row["Month"] == "May")]
            for row in rows
        ]
    )
    y = np.array([row["Revenue"] == "TRUE" for row in rows])
    model = learned(x, y)
    seen = model.examples
    so_far = (np.cumsum(y) - y + 1.0) / (np.arange(len(y)) + 2.0)
    base = -np.log(np.where(y, so_far, 1.0 - so_far))[:seen].mean()
    assert MEMBERS[model.members.champion] == "blend"
    assert model.progress.log_loss(BLEND) < base - 0.02
    assert model.progress.auc(BLEND) > 0.65


def test_the_rate_finds_the_prior_that_people_were_drawn_from() -> None:
    """Beta(0.8, 3.2): mean 0.2, strength 4; within a tenth of the mean and one step of the grid."""
    rng = np.random.default_rng(5)
    people = rng.beta(0.8, 3.2, 2_000)
    successes, rows, outcomes = np.zeros(2_000), [], []
    for trials in range(8):
        y = rng.random(2_000) < people
        rows.append(np.stack([successes, np.full(2_000, float(trials))], axis=1))
        outcomes.append(y)
        successes = successes + y
    model = learned(np.concatenate(rows), np.concatenate(outcomes))
    step = STRENGTHS[1] / STRENGTHS[0]
    assert abs(model.members.mean - 0.2) < 0.02
    assert 4.0 / step <= model.members.strength <= 4.0 * step


def test_linear_member_is_rivers_logistic_regression() -> None:
    """Example by example the weights are those of River with the same optimizer, to 1e-12, and so are the scores."""
    from river import linear_model, optim

    rng = np.random.default_rng(6)
    z, y = rng.normal(size=(400, 5)), rng.random(400) < 0.3
    optimizer: Any = optim.AdaGrad(lr=LEARNING_RATE, eps=EPSILON)
    theirs: Any = linear_model.LogisticRegression(optimizer=optimizer, intercept_lr=INTERCEPT_RATE)
    ours = PropensityModel(6)
    for row, outcome in zip(z, y.tolist(), strict=True):
        named = {str(i): value for i, value in enumerate(row.tolist())}
        p = float(sigmoid(ours.members.linear(row[None]))[0])
        assert abs(p - theirs.predict_proba_one(named)[True]) < 1e-12
        ours._learn_linear(row[None], ours.members.linear(row[None]), np.array([float(outcome)]))
        theirs.learn_one(named, outcome)
    weights = [theirs.weights[str(i)] for i in range(5)]
    assert np.allclose(ours.members.weights, weights, rtol=0.0, atol=1e-12)


def test_exported_trees_are_rivers_forest() -> None:
    """The arrays give River's probabilities to 1e-12, from the first example on."""
    from river.forest import ARFClassifier

    rng = np.random.default_rng(7)
    x = rng.normal(size=(1_200, 6))
    y = rng.random(1_200) < sigmoid(2.0 * x[:, 0] * x[:, 1] + x[:, 2])
    make: Any = ARFClassifier
    forest = make(n_models=3, leaf_prediction="mc", grace_period=30, seed=1)
    forest.predict_proba_one(dict(enumerate(x[0].tolist())))  # plants it
    checked = 0
    for count, (row, outcome) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
        if count in (0, 1, 20, 300, 1_199):
            trees = exported(forest)
            for other, ours in zip(x[:200].tolist(), trees.probabilities(x[:200]).tolist(), strict=True):
                theirs = forest.predict_proba_one(dict(enumerate(other)))
                assert abs(ours - (theirs.get(True, 0.0) if theirs else 0.5)) < 1e-12
                checked += 1
        forest.learn_one(dict(enumerate(row)), outcome)
    assert checked == 1_000
    assert exported(forest).depth > 1


@pytest.mark.parametrize("champion", range(len(MEMBERS)))
def test_one_row_scores_as_many_do(reader: PropensityModel, champion: int) -> None:
    """The scorer of decisions and the arrays of the learner agree to 1e-12, whoever is champion."""
    restored = propensity_state.model(propensity_state.encode(reader), WIDTH)
    restored.members.champion = champion
    rows = newsletter(9, people=50, letters=8)[0]
    odd = np.array([[5.0, 2.0, *[-1e9] * 6], [-1.0, -1.0, *[1e9] * 6]])
    rows = np.concatenate([rows, odd])
    scorer = Scorer(restored.members)
    one_by_one = np.array([scorer.score(row) for row in rows.tolist()])
    assert np.abs(one_by_one - restored.members.scores(rows)).max() < 1e-12
    assert ((one_by_one > 0.0) & (one_by_one < 1.0)).all()


def test_batches_do_not_matter() -> None:
    """One call or many, the bytes are the same."""
    x, y = newsletter(10, people=100, letters=10)
    whole, parts = learned(x, y), PropensityModel(WIDTH)
    for start, end in zip([0, 1, 8, 500, 777], [1, 8, 500, 777, len(x)], strict=True):
        parts.learn(x[start:end], y[start:end])
    assert propensity_state.encode(whole) == propensity_state.encode(parts)


@pytest.mark.parametrize("cut", [0, 5, 700, 1_500])
def test_a_stored_model_goes_on_as_if_it_had_never_stopped(cut: int) -> None:
    """Forest and drift detector, too: bytes after learning on are the same."""
    x, y = newsletter(11, people=100, letters=20)
    whole = learned(x, y)
    again = propensity_state.model(propensity_state.encode(learned(x[:cut], y[:cut])), WIDTH)
    again.learn(x[cut:], y[cut:])
    assert propensity_state.encode(again) == propensity_state.encode(whole)


def test_the_forest_turns_over_and_is_still_a_function_of_its_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the ring is full the young forest takes over; grown anew from the ring it has the same trees."""
    monkeypatch.setattr(propensity_forest, "SHARE", 1.0)
    monkeypatch.setattr(propensity_forest, "BALANCE", 1_000)
    rng = np.random.default_rng(12)
    x = rng.normal(size=(RING + 100, 3)).astype(np.float32).astype(np.float64)
    y = rng.random(len(x)) < sigmoid(x[:, 0])
    forest = Forest(3)
    forest.learn(x, y)
    assert (forest.generation, forest.count) == (1, HALF + 100)
    anew = Forest(3)
    anew.x, anew.y, anew.count, anew.generation = forest.x, forest.y, forest.count, forest.generation
    here, there = (exported(one._forests()[0]).probabilities(x) for one in (forest, anew))
    assert np.array_equal(here, there)


def test_drift_is_told_and_only_then() -> None:
    """An alarm when every reader's habits turn into their opposite, none before; chance of a false one 0.002."""
    x, y = newsletter(13, people=400, letters=20)
    model = learned(x, y)
    assert model.drifts == 0
    model.learn(x[6_000:], ~y[6_000:])
    assert model.drifts >= 1


def test_nobody_is_promoted_for_nothing() -> None:
    """Of 300 challengers that are no better, followed over 20,000 examples each, at most 5 cross the bound.

    The bound's level is 1 % shared by three: one is to be expected, more than 5 has a chance below 0.001.
    """
    rng = np.random.default_rng(14)
    promoted = 0
    for _ in range(300):
        gains = np.cumsum(rng.normal(0.0, 0.3, 20_000))[63::64]
        squares = np.cumsum(np.full(20_000, 0.09))[63::64]
        ns = np.arange(64, 20_001, 64)[: len(gains)]
        promoted += any(lower_bound(n, g, s) > 0.0 for n, g, s in zip(ns, gains, squares, strict=True))
    assert promoted <= 5


def test_a_better_challenger_is_promoted_and_a_champion_gone_bad_replaced() -> None:
    """The gate works both ways; what was before a drift counts no more."""
    progress = Progress()
    rng = np.random.default_rng(15)
    y = (rng.random(2_000) < 0.3).astype(float)
    good, bad = np.where(y > 0, -0.2, -1.2), np.full(2_000, -0.85)
    log_odds = np.stack([bad, bad, bad, good], axis=1)
    progress.take(log_odds, y)
    assert progress.promoted(RATE) == progress.promoted(BLEND) == BLEND
    for _ in range(2):
        progress.take(log_odds[:, ::-1], y)
    assert progress.promoted(BLEND) == RATE
    progress.forget_comparisons()
    assert progress.promoted(BLEND) == BLEND


def test_measures_are_what_they_say() -> None:
    """Log-loss, AUC and calibration error from histograms, against their definitions."""
    rng = np.random.default_rng(16)
    logit = rng.normal(-1.0, 1.0, 4_000)
    y = (rng.random(4_000) < sigmoid(logit)).astype(float)
    progress = Progress()
    progress.take(np.stack([logit, logit + 1.0, logit, logit], axis=1), y)
    p = sigmoid(logit)
    assert abs(progress.log_loss(RATE) - -np.log(np.where(y > 0, p, 1 - p)).mean()) < 1e-9
    exact = (logit[y > 0][:, None] > logit[y == 0][None]).mean()
    assert abs(progress.auc(RATE) - exact) < 0.002
    assert progress.calibration_error(RATE) < 0.02
    assert progress.calibration_error(LINEAR) > 0.15
    empty = Progress()
    assert all(math.isnan(m) for m in (empty.log_loss(RATE), empty.auc(RATE), empty.calibration_error(RATE)))


def _changed(data: bytes, *path: str | int, value: Any) -> bytes:
    said = json.loads(data)
    place = said
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return json.dumps(said).encode()


def test_what_is_no_model_is_refused(reader: PropensityModel) -> None:
    """A typed error for each: other widths, missing and misshapen arrays, numbers out of range, no JSON."""
    data = propensity_state.encode(reader)
    assert propensity_state.scorer(data, WIDTH).members.champion == reader.members.champion
    bad = {
        "empty": b"",
        "cut": data[: len(data) // 2],
        "list": b"[]",
        "champion": _changed(data, "scoring", "champion", value=9),
        "mean": _changed(data, "scoring", "mean", value=1.5),
        "strength": _changed(data, "scoring", "strength", value=0.0),
        "depth": _changed(data, "scoring", "depth", value=1_000_000),
        "no array": _changed(data, "scoring", "arrays", "blend", value=None),
        "not deflated": _changed(data, "scoring", "arrays", "blend", 2, value="AAAA"),
        "another shape": _changed(data, "scoring", "arrays", "blend", 1, value=[3]),
        "too large": _changed(data, "scoring", "arrays", "roots", 1, value=[1_000_000]),
        "another type": _changed(data, "scoring", "arrays", "blend", 0, value="i8"),
    }
    array = json.loads(data)["scoring"]["arrays"]["weights"]
    nan = base64.b64encode(zlib.compress(np.full(array[1], np.nan).tobytes())).decode()
    bad["not finite"] = _changed(data, "scoring", "arrays", "weights", value=[*array[:2], nan])
    left = json.loads(data)["scoring"]["arrays"]["threshold"]
    bad["leads out"] = _changed(data, "scoring", "arrays", "left", value=["i8", *left[1:]])
    for name, one in bad.items():
        with pytest.raises(SnapshotError):
            propensity_state.scorer(one, WIDTH)
        with pytest.raises(SnapshotError):
            propensity_state.model(one, WIDTH)
        assert name
    with pytest.raises(SnapshotError):
        propensity_state.scorer(data, WIDTH + 1)
    with pytest.raises(SnapshotError):
        propensity_state.model(_changed(data, "learning", "forest_count", value=RING), WIDTH)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_bytes_are_refused_or_harmless(reader: PropensityModel, data: st.DataObject) -> None:
    """One byte anywhere: `SnapshotError`, or a model whose scores are probabilities."""
    whole = bytearray(propensity_state.encode(reader))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        scorer = propensity_state.scorer(bytes(whole), WIDTH)
    except SnapshotError:
        return
    assert 0.0 < scorer.score([1.0] * WIDTH) < 1.0


def test_a_row_of_another_width_is_refused(reader: PropensityModel) -> None:
    """The message says what was expected."""
    with pytest.raises(ValueError, match="expected 8"):
        Scorer(reader.members).score([0.0] * 7)
    with pytest.raises(ValueError, match=r"expected \(n, 8\)"):
        reader.learn(np.zeros((1, 7)), np.zeros(1, np.bool_))
    with pytest.raises(ValueError, match="width is 1"):
        PropensityModel(1)


def test_whoever_only_decides_does_not_import_river() -> None:
    """Neither the engine nor a worker's modules: it takes seconds and 100 MB."""
    code = (
        "import sys, decisioning.engine, decisioning.learning, decisioning.scoring, bandits, streams.worker\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('river', 'scipy')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_gate_is_the_published_one() -> None:
    """The bound's constants are those the docs name: 1 % for all challengers together, not before 500 examples."""
    assert (propensity_progress.ALPHA, propensity_progress.MIN_EXAMPLES) == (0.01, 500)
    assert lower_bound(499, 400.0, 400.0) == -math.inf
