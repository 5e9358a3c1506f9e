"""Models of named arms: exact, hierarchical, bounded, and no worse for a context that says nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.arms import MAX_ARMS, ArmModel
from bandits.policy import Floats, is_distribution
from bandits.ready import ReadyPolicy
from bandits.rules import RULES
from bandits.snapshot import SnapshotError
from bandits.spec import PolicySpec

ALGORITHMS = sorted(RULES)
ARMS = ("a", "b", "c", "d")
GOLDEN = 0x9E3779B97F4A7C15
Example = tuple[str, Floats, float, float, int]


def examples(count: int, width: int, seed: int = 0) -> list[Example]:
    """Examples whose rewards depend on the arm and on the first number of the context."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        arm, x = int(rng.integers(0, len(ARMS))), rng.standard_normal(width)
        rate = 0.1 + 0.1 * arm + (0.1 * (x[0] > 0.0) if width and arm == 0 else 0.0)
        reward = float(rng.random() < rate)
        found.append((ARMS[arm], x, reward, 1e9 + float(rng.random()) * 3e6, (index * GOLDEN) % 2**64))
    return found


def taught(found: list[Example], width: int, half_life_s: float | None = None) -> ArmModel:
    """A model that learned these."""
    model = ArmModel(width, half_life_s)
    for example in found:
        model.learn(*example)
    return model


def asked(ready: ReadyPolicy, width: int, *, newcomer: bool = True) -> Floats:
    """Probabilities in three contexts."""
    arms = [*ARMS, "new"] if newcomer else list(ARMS)
    return ready.probabilities_of(arms, np.random.default_rng(9).standard_normal((3, width)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("width", [0, 1, 24])
def test_probabilities_keep_the_promises(algorithm: str, width: int) -> None:
    """Positive, adding to 1, at least the floor, the same for any order of arms, one context or many."""
    for model in (ArmModel(width), taught(examples(400, width), width)):
        ready = model.ready(PolicySpec(algorithm, explore=0.1))
        x = np.random.default_rng(1).standard_normal((4, width))
        names = [*ARMS, "new", "newer"]
        p = ready.probabilities_of(names, x)
        assert all(is_distribution(row) for row in p)
        assert p.min() >= 0.1 / 6 - 1e-15
        assert np.array_equal(ready.probabilities(names[::-1], x[2])[::-1], ready.probabilities(names, x[2]))
        assert np.allclose(ready.probabilities(names, x[2]), p[2], atol=1e-12)
        assert p[0, 4] == p[0, 5], "two newcomers are alike"
        assert ready.probabilities(["b"], x[0]).tolist() == [1.0]


def test_bytes_bring_a_model_back_to_the_bit() -> None:
    """Written in the middle and read back, it ends with the bytes of a run without interruption."""
    found = examples(300, 5)
    whole = taught(found, 5, 86400.0)
    resumed = ArmModel.from_bytes(taught(found[:137], 5, 86400.0).to_bytes())
    for example in found[137:]:
        resumed.learn(*example)
    assert resumed.to_bytes() == whole.to_bytes()
    again = ArmModel.from_bytes(whole.to_bytes())
    for algorithm in ALGORITHMS:
        spec = PolicySpec(algorithm)
        assert np.array_equal(asked(again.ready(spec), 5), asked(whole.ready(spec), 5))


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 80), width=st.sampled_from([0, 3, 17]))
@settings(max_examples=30, deadline=None)
def test_late_outcomes_in_any_order_are_the_batch_solution(seed: int, count: int, width: int) -> None:
    """Posted at 0 and corrected in parts, in any order: all probabilities are those of the final rewards."""
    rng = np.random.default_rng(seed)
    found = examples(count, width, seed)
    final = [(arm, x, float(rng.standard_normal() * 10), at_s, key) for arm, x, _, at_s, key in found]
    batch, late = taught(final, width, 864000.0), ArmModel(width, 864000.0)
    for index in rng.permutation(count):
        arm, x, _, at_s, key = final[index]
        late.learn(arm, x, 0.0, at_s, key)
    parts = [(index, share) for index in range(count) for share in (0.25, 0.75)]
    for place in rng.permutation(len(parts)):
        index, share = parts[place]
        arm, x, reward, at_s, key = final[index]
        late.correct(arm, x, share * reward, at_s, key)
    for algorithm in set(ALGORITHMS) - {"beta_bernoulli"}:  # whose unit is the largest outcome that came in at once
        spec = PolicySpec(algorithm, horizon=500)
        assert np.allclose(asked(late.ready(spec), width), asked(batch.ready(spec), width), atol=1e-9), algorithm


def test_what_is_forgotten_was_never_learned() -> None:
    """An example with its outcomes taken back leaves what the others taught, to 1e-9."""
    found = examples(200, 4)
    kept, all_of_them = taught(found[:150], 4, 86400.0), taught(found, 4, 86400.0)
    for arm, x, reward, at_s, key in found[150:]:
        all_of_them.correct(arm, x, 2.5, at_s, key)
        all_of_them.forget(arm, x, reward + 2.5, at_s, key)
    spec = PolicySpec("softmax", horizon=1000)
    kept.learn("a", np.zeros(4), 0.0, 2e9, 0)  # so that both know the same latest time
    all_of_them.learn("a", np.zeros(4), 0.0, 2e9, 0)
    assert np.allclose(asked(all_of_them.ready(spec), 4), asked(kept.ready(spec), 4), atol=1e-9)
    for arm, (tried, mean) in kept.tried().items():
        assert all_of_them.tried()[arm] == pytest.approx((tried, mean), rel=1e-9)


def test_ages_halve_exactly_whatever_the_order_of_times() -> None:
    """An arm's weight and mean are sums of 2^-(age / half-life), with the latest example first or last."""
    times = [1e9, 1e9 + 3 * 3600.0, 1e9 + 50 * 3600.0, 1e9 + 7 * 3600.0]
    rewards = [1.0, 0.0, 1.0, 1.0]
    weight = [2.0 ** ((t - max(times)) / 3600.0) for t in times]
    mean = sum(w * r for w, r in zip(weight, rewards, strict=True)) / sum(weight)
    for order in ([0, 1, 2, 3], [2, 0, 3, 1], [3, 2, 1, 0]):
        model = ArmModel(0, 3600.0)
        for index in order:
            model.learn("a", np.zeros(0), rewards[index], times[index], index)
        assert model.tried()["a"] == pytest.approx((sum(weight), mean), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("reward", {"reward": float("nan")}),
        ("reward", {"reward": float("inf")}),
        ("reward", {"x": np.array([1.0, np.nan])}),
        ("reward", {"x": np.array([1.0, -np.inf])}),
        ("reward", {"at_s": float("nan")}),
        ("x has shape", {"x": np.ones(3)}),
        ("x has shape", {"x": 1.0}),
    ],
)
def test_bad_numbers_are_refused_and_change_nothing(name: str, arguments: dict[str, Any]) -> None:
    """By learn, correct and forget alike."""
    model = taught(examples(20, 2), 2)
    before = model.to_bytes()
    good: dict[str, Any] = {"arm": "a", "x": np.ones(2), "at_s": 1e9, "key": 1}
    for call, amount in ((model.learn, "reward"), (model.correct, "delta"), (model.forget, "reward")):
        given_ = {amount if key == "reward" else key: value for key, value in arguments.items()}
        with pytest.raises(ValueError, match=name):
            call(**{**good, amount: 1.0, **given_})
    assert model.to_bytes() == before
    for arms, x in (([], np.ones(2)), (["a", "b"], np.ones(3)), (["a", "b"], np.full(2, np.nan))):
        with pytest.raises(ValueError, match="expected"):
            model.ready(PolicySpec()).probabilities(arms, x)


def test_a_correction_of_what_was_not_learned_is_refused() -> None:
    """Of an arm nobody knows nothing can be corrected or taken back."""
    model = ArmModel(0)
    for call in (model.correct, model.forget):
        with pytest.raises(ValueError, match="not known"):
            call("a", np.zeros(0), 1.0, 0.0, 1)
    assert model.to_bytes() == ArmModel(0).to_bytes()


@pytest.mark.parametrize("width", [-1, 25, 1.0, True])
def test_a_wrong_width_is_refused(width: Any) -> None:
    """At most 24 numbers of context."""
    with pytest.raises(ValueError, match=r"^width is .*expected 0 to 24"):
        ArmModel(width)


def test_damaged_bytes_are_refused_with_one_error() -> None:
    """Cut short, changed anywhere, or made up."""
    good = taught(examples(50, 3), 3).to_bytes()
    rng = np.random.default_rng(3)
    for end in {0, 1, 30, len(good) // 2, len(good) - 1}:
        with pytest.raises(SnapshotError):
            ArmModel.from_bytes(good[:end])
    for _ in range(200):
        bad = bytearray(good)
        bad[int(rng.integers(0, len(bad)))] ^= int(rng.integers(1, 256))
        with pytest.raises(SnapshotError):
            ArmModel.from_bytes(bytes(bad))


@pytest.mark.parametrize("width", [0, 24])
def test_arms_are_bounded_and_the_longest_unseen_goes(width: int) -> None:
    """A model keeps at most 500 arms and its bytes fit into a record of a megabyte; those still in use stay."""
    model = ArmModel(width)
    for index in range(MAX_ARMS + 40):
        for arm in ("kept", f"arm {index}"):
            model.learn(arm, np.full(width, float(index)), 1.0, 1e9 + index, index)
    names = set(model.tried())
    assert len(names) == model.max_arms <= MAX_ARMS
    assert {"kept", f"arm {MAX_ARMS + 39}"} <= names
    assert "arm 0" not in names
    assert len(model.to_bytes()) < 700_000
    assert ArmModel.from_bytes(model.to_bytes()).to_bytes() == model.to_bytes()
    assert is_distribution(model.ready(PolicySpec()).probabilities(sorted(names), np.zeros(width)))


@pytest.mark.parametrize("size", [1e12, 1e-12])
def test_numbers_of_any_size_give_no_nan(size: float) -> None:
    """In contexts, in rewards, and in what is asked."""
    for features, rewards in ((size, 1.0), (1.0, size), (size, size)):
        model = ArmModel(3)
        for arm, x, reward, at_s, key in examples(100, 3):
            model.learn(arm, x * features, reward * rewards, at_s, key)
        for algorithm in ALGORITHMS:
            ready = model.ready(PolicySpec(algorithm))
            for scale in (1.0, features):
                assert is_distribution(ready.probabilities([*ARMS, "new"], scale * np.array([1.0, -1.0, 0.5])))


def test_the_scale_of_rewards_does_not_matter() -> None:
    """Euros and cents give the same probabilities, to 1e-6."""
    models = [ArmModel(2) for _ in range(2)]
    for arm, x, reward, at_s, key in examples(500, 2):
        for model, unit in zip(models, (1.0, 100.0), strict=True):
            model.learn(arm, x, reward * unit, at_s, key)
    spec = PolicySpec()
    assert np.allclose(asked(models[0].ready(spec), 2), asked(models[1].ready(spec), 2), atol=1e-6)


def test_a_newcomer_starts_from_what_is_known_of_all() -> None:
    """Its mean is that of the arms, its spread what they differ by; it is tried, though the others are well known."""
    rng = np.random.default_rng(5)
    model = ArmModel(0)
    rates = {"a": 0.10, "b": 0.12, "c": 0.08, "d": 0.11}
    for key in range(8000):
        arm = ARMS[key % 4]
        model.learn(arm, np.zeros(0), float(rng.random() < rates[arm]), 1e9, key * GOLDEN % 2**64)
    ready = model.ready(PolicySpec())
    scores = ready.scores([*ARMS, "new"], np.zeros(0))
    assert scores["new"][0] == pytest.approx(0.1025, abs=0.01)
    assert 0.005 < scores["new"][1] < 0.05
    p = ready.probabilities([*ARMS, "new"], np.zeros(0))
    assert p[4] > 2 * p[2], "more than an arm that is known to be bad"


def regret(width: int, rates: Floats, seed: int, *, useful: float = 0.0) -> float:
    """Regret over 4,000 decisions in 40 batches; the first number of context, if used, turns the first two arms."""
    rng = np.random.default_rng(seed)
    model, names, lost, key = ArmModel(width), [f"arm {index}" for index in range(len(rates))], 0.0, 0
    turns = np.zeros(len(rates))
    turns[:2] = useful, -useful
    for batch in range(40):
        x = rng.standard_normal((100, 24))
        true = rates * (1.0 + np.sign(x[:, :1]) * turns)
        p = model.ready(PolicySpec()).probabilities_of(names, x[:, :width])
        arm = np.minimum((p.cumsum(axis=1) < rng.random((100, 1))).sum(axis=1), len(rates) - 1)
        lost += float((true.max(axis=1) - (p * true).sum(axis=1)).sum())
        came = rng.random(100) < true[np.arange(100), arm]
        for index in range(100):
            key = (key + GOLDEN) % 2**64
            model.learn(names[arm[index]], x[index, :width], float(came[index]), 3600.0 * batch, key)
    return lost


def test_a_context_that_says_nothing_costs_little() -> None:
    """One strong arm of four and 24 numbers of noise: regret at most 30 more than without context, of 150 if uniform.

    Means over 12 fixed seeds; the difference is about 10 with a standard error of 5: wrong for 1 in 10^4 sets.
    """
    rates = np.array([0.05, 0.05, 0.05, 0.10])
    without, with_noise = (np.mean([regret(width, rates, seed) for seed in range(12)]) for width in (0, 24))
    assert with_noise < without + 30.0


def test_a_context_that_says_much_is_used() -> None:
    """One of 24 numbers turns the best arm: regret falls to less than 0.75 of that without context.

    Means over 8 fixed seeds; 0.60 with a standard error of 0.03: wrong for less than 1 in 10^5 sets.
    """
    rates = np.array([0.05, 0.05, 0.03, 0.03])
    without, used = (np.mean([regret(width, rates, seed, useful=0.9) for seed in range(8)]) for width in (0, 24))
    assert used < 0.75 * without
