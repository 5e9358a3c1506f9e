"""Every policy of the API keeps what a policy promises: the battery runs over all there are."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits import Policy, build_policy, draw
from bandits.belief import Belief, Outlook
from bandits.policy import Floats, is_distribution
from bandits.rules import RULES
from bandits.snapshot import SnapshotError
from bandits.spec import PolicySpec
from tests.services import ROOT

ALGORITHMS = sorted(RULES)
LEARNING = [name for name in ALGORITHMS if name != "uniform"]
EXACT = 1e-9


@pytest.fixture(params=ALGORITHMS)
def algorithm(request: pytest.FixtureRequest) -> str:
    """Each algorithm in turn: a new one is a file and its line in `RULES`."""
    name: str = request.param
    return name


def made(algorithm: str, dim: int = 4, **more: Any) -> Policy:
    """A policy that knows nothing."""
    return build_policy({"algorithm": algorithm, **more}, dim)


def rows(count: int, dim: int = 4, seed: int = 0) -> Floats:
    """Rows of features, all different."""
    return np.random.default_rng(seed).standard_normal((count, dim))


def taught(algorithm: str, count: int = 300, dim: int = 4, **more: Any) -> Policy:
    """A policy that learned rewards which grow with the first feature, of rows that are arms by name or by features."""
    rng = np.random.default_rng(1)
    policy = made(algorithm, dim, **more)
    x = np.eye(dim)[rng.integers(0, dim, count)] if algorithm == "beta_bernoulli" else rng.standard_normal((count, dim))
    policy.learn(x, (rng.random(count) < 0.2 + 0.5 * (x[:, 0] > 0.5)).astype(float), at_s=1e9 + 60.0 * np.arange(count))
    return policy


def asked(policy: Policy) -> Floats:
    """Its probabilities for rows it has seen and rows it has not."""
    x = np.concatenate([np.eye(policy.dim), rows(3, policy.dim)])
    return policy.probabilities(x)


@pytest.mark.parametrize("arms", [1, 2, 3, 24, 40])
def test_probabilities_are_positive_and_add_to_one(algorithm: str, arms: int) -> None:
    """Before and after learning, for one arm and for many."""
    for policy in (made(algorithm), taught(algorithm), made(algorithm, explore=0.0), taught(algorithm, explore=0.0)):
        assert is_distribution(policy.probabilities(rows(arms)))


def test_no_arm_falls_below_the_floor(algorithm: str) -> None:
    """Each has at least `explore / arms`, however bad it is."""
    for explore in (0.05, 0.4, 1.0):
        assert asked(taught(algorithm, explore=explore)).min() >= explore / 7 - 1e-15


def test_before_learning_all_arms_are_alike(algorithm: str) -> None:
    """And so they are when all rewards were 0: nothing tells them apart."""
    policy = made(algorithm)
    assert np.allclose(policy.probabilities(rows(5)), 0.2, atol=1e-12)
    policy.learn(np.eye(4)[[0, 0, 1]], np.zeros(3))
    if algorithm != "beta_bernoulli":  # which takes a failure for a failure
        assert np.allclose(policy.probabilities(rows(5)), 0.2, atol=1e-12)


@pytest.mark.parametrize("horizon", [None, 1000])
def test_the_order_of_arms_does_not_matter(algorithm: str, horizon: int | None) -> None:
    """Exactly, to the bit, for features and for names."""
    policy = taught(algorithm, horizon=horizon)
    for x in (np.eye(4), rows(6), np.concatenate([np.eye(4), rows(30)])):
        order = np.random.default_rng(2).permutation(len(x))
        assert np.array_equal(policy.probabilities(x)[order], policy.probabilities(x[order]))


def test_arms_that_are_alike_have_the_same_probability(algorithm: str) -> None:
    """A row given twice shares, to the bit."""
    policy = taught(algorithm)
    for x in (np.eye(4)[[0, 1, 0, 2]], rows(5)[[0, 1, 0, 2]]):
        p = policy.probabilities(x)
        assert p[0] == p[2]
        assert p[1] != p[0] or algorithm in {"uniform", "epsilon_greedy", "beta_bernoulli"}


@pytest.mark.parametrize("count", [2, 3, 7, 13])
def test_neither_order_nor_sameness_hangs_on_how_products_round(algorithm: str, count: int) -> None:
    """Each of some rows of 17 features twice, in another order: products of matrices round by place, answers do not."""
    policy, x = taught(algorithm, dim=17, horizon=10_000), rows(count, 17, seed=8)
    twice = np.concatenate([x, x, x[:1]])
    p = policy.probabilities(twice)
    assert is_distribution(p)
    assert np.array_equal(p[1:count], p[count + 1 : 2 * count])
    order = np.random.default_rng(9).permutation(len(twice))
    assert np.array_equal(policy.probabilities(twice[order]), p[order])


def test_a_batch_of_decisions_is_its_decisions(algorithm: str) -> None:
    """`probabilities_of` gives for each decision what `probabilities` gives for it alone."""
    policy, x = taught(algorithm), rows(60 * 5).reshape(60, 5, 4)
    alone = np.stack([policy.probabilities(one) for one in x])
    assert np.allclose(policy.probabilities_of(x), alone, atol=1e-12)


def test_bytes_bring_a_policy_back_to_the_bit(algorithm: str) -> None:
    """The policy read back answers the same, goes on learning the same, and has the same bytes."""
    policy = taught(algorithm, half_life="7d", horizon=5000)
    again = Policy.from_bytes(policy.to_bytes())
    assert again.to_bytes() == policy.to_bytes()
    assert np.array_equal(asked(again), asked(policy))
    for one in (policy, again):
        one.learn(np.eye(4), np.arange(4.0), at_s=np.full(4, 2e9))
    assert np.array_equal(asked(again), asked(policy))
    assert again.to_bytes() == policy.to_bytes()


def test_another_process_gives_the_same_probabilities(algorithm: str) -> None:
    """Nothing hangs on hash seeds or on what happened before."""
    policy = taught(algorithm)
    code = (
        "import sys, json, numpy as np; from bandits import Policy;"
        "p = Policy.from_bytes(bytes.fromhex(sys.stdin.read()));"
        "print(json.dumps(p.probabilities(np.eye(4)).tolist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=policy.to_bytes().hex(),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert json.loads(done.stdout) == policy.probabilities(np.eye(4)).tolist()


def test_damaged_bytes_are_refused_with_one_error(algorithm: str) -> None:
    """Cut short, changed or made up: a SnapshotError, which is a ValueError, and nothing else."""
    good = taught(algorithm).to_bytes()
    rng = np.random.default_rng(3)
    for end in {0, 1, 7, 60, len(good) // 2, len(good) - 1}:
        with pytest.raises(SnapshotError):
            Policy.from_bytes(good[:end])
    for made_up in (b"\x80\x04N.", good + b"x", b"\xff" * 100, b"\x93\xa7policy1\x80\xc6\xff\xff\xff\xff"):
        with pytest.raises(SnapshotError):
            Policy.from_bytes(made_up)
    for _ in range(300):
        bad = bytearray(good)
        bad[int(rng.integers(0, min(len(bad), 400)))] ^= int(rng.integers(1, 256))
        with pytest.raises(SnapshotError):
            Policy.from_bytes(bytes(bad))


@pytest.mark.parametrize("huge", [1e12, -1e12, 1e-12, 1e25])
def test_numbers_of_any_size_give_no_nan(algorithm: str, huge: float) -> None:
    """In features, in rewards, in both, and in what is asked."""
    for features, reward in ((huge, 1.0), (1.0, huge), (huge, huge)):
        policy = made(algorithm)
        x = np.eye(4)[np.arange(40) % 4] * features
        policy.learn(x, reward * (np.arange(40) % 3))
        policy.correct(x[:5], np.full(5, reward))
        for question in (np.eye(4), np.eye(4) * features, rows(5) * features):
            assert is_distribution(policy.probabilities(question))


def test_empty_things_give_no_nan(algorithm: str) -> None:
    """No examples, examples of weight 0, rows that are all 0, and a gap of 10^8 half-lives."""
    policy = made(algorithm, half_life="1d")
    for x, reward, weight, at_s in (
        (np.zeros((0, 4)), np.zeros(0), None, None),
        (np.eye(4), np.arange(4.0), np.zeros(4), None),
        (np.zeros((5, 4)), np.ones(5), None, None),
        (np.eye(4), np.arange(4.0), None, np.arange(4.0)),
        (np.eye(4), np.arange(4.0), None, np.full(4, 1e13)),
    ):
        policy.learn(x, reward, weight, at_s)
        for question in (np.eye(4), np.zeros((2, 4)), rows(3)):
            assert is_distribution(policy.probabilities(question))


def test_bad_numbers_are_refused_and_change_nothing(algorithm: str) -> None:
    """NaN, infinity, wrong widths and lengths, negative weights: a ValueError that names the parameter."""
    policy = taught(algorithm)
    before, x, nan = policy.to_bytes(), np.eye(4), float("nan")
    bad: list[tuple[str, dict[str, Any]]] = [
        ("x", {"x": np.full((1, 4), nan), "reward": [1.0]}),
        ("x", {"x": np.full((1, 4), np.inf), "reward": [1.0]}),
        ("x", {"x": np.ones((1, 3)), "reward": [1.0]}),
        ("x", {"x": np.ones(4), "reward": [1.0]}),
        ("x", {"x": "text", "reward": [1.0]}),
        ("reward", {"x": x, "reward": [1.0, 2.0, 3.0, nan]}),
        ("reward", {"x": x, "reward": [1.0, 2.0, 3.0, -np.inf]}),
        ("reward", {"x": x, "reward": [1.0]}),
        ("weight", {"x": x, "reward": np.ones(4), "weight": [1.0, 1.0, 1.0, -1e-9]}),
        ("weight", {"x": x, "reward": np.ones(4), "weight": [1.0, 1.0, 1.0, nan]}),
        ("at_s", {"x": x, "reward": np.ones(4), "at_s": [0.0, 0.0, 0.0, nan]}),
        ("at_s", {"x": x, "reward": np.ones(4), "at_s": [0.0]}),
    ]
    for name, arguments in bad:
        with pytest.raises(ValueError, match=rf"^{name} .*(expected|drop)"):
            policy.learn(**arguments)
    with pytest.raises(ValueError, match=r"^delta"):
        policy.correct(x, np.full(4, nan))
    for question in (np.ones((2, 3)), np.ones(4), np.full((2, 4), nan), np.zeros((0, 4))):
        with pytest.raises(ValueError, match=r"^x has"):
            policy.probabilities(question)
    assert policy.to_bytes() == before


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ({"algorithm": "nothing"}, "algorithm"),
        ({"algorithm": "thompson", "explor": 0.1}, "explor"),
        ({"explore": 1.5}, "explore"),
        ({"explore": float("nan")}, "explore"),
        ({"explore": "much"}, "explore"),
        ({"explore": True}, "explore"),
        ({"half_life": "soon"}, "half_life"),
        ({"half_life": 0}, "half_life"),
        ({"horizon": 0}, "horizon"),
        ({"horizon": 2.5}, "horizon"),
        ({"temperature": -1}, "temperature"),
        ({"gamma": 0}, "gamma"),
        ([], "spec"),
    ],
)
def test_a_wrong_specification_is_refused_by_name(spec: Any, name: str) -> None:
    """The error names the parameter, what was given and what was expected."""
    with pytest.raises(ValueError, match=rf"{name}.*expected"):
        build_policy(spec, 4)


@pytest.mark.parametrize("dim", [0, -1, 501, 2.0, True, "4"])
def test_a_wrong_dim_is_refused(algorithm: str, dim: Any) -> None:
    """Before anything is allocated."""
    with pytest.raises(ValueError, match=r"^dim is .*expected"):
        build_policy({"algorithm": algorithm}, dim)


@pytest.mark.parametrize("algorithm", LEARNING)
def test_the_better_arm_is_preferred(algorithm: str) -> None:
    """Of arms with rates 0.1 and 0.3, after 1,000 examples each, the better has more than 0.9.

    Wrong for one world in 10^6 or fewer (the difference is 13 standard errors); the seeds are fixed.
    """
    rng = np.random.default_rng(4)
    policy = made(algorithm, 2)
    policy.learn(np.eye(2).repeat(1000, axis=0), (rng.random(2000) < np.repeat([0.1, 0.3], 1000)).astype(float))
    assert policy.probabilities(np.eye(2))[1] > (0.6 if algorithm == "squarecb" else 0.9)


@pytest.mark.parametrize("algorithm", LEARNING)
def test_bad_outcomes_turn_a_policy_away(algorithm: str) -> None:
    """Corrections are learned from: an arm that was best and whose rewards are taken back is no longer preferred."""
    policy = made(algorithm, 2)
    policy.learn(np.eye(2).repeat(200, axis=0), np.repeat([0.0, 1.0], 200) * (np.arange(400) % 2))
    liked = policy.probabilities(np.eye(2))[1]
    policy.correct(np.eye(2)[np.ones(100, dtype=int)], np.full(100, -1.0))
    policy.correct(np.eye(2)[np.zeros(100, dtype=int)], np.full(100, 1.0))
    assert policy.probabilities(np.eye(2))[1] < 0.5 < liked


def split(total: Floats, seed: int) -> list[Floats]:
    """Parts that add to the total, none of them like another."""
    share = np.random.default_rng(seed).random((2, len(total)))
    return [share[0] * total, share[1] * total, total - share[0] * total - share[1] * total]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("names", [True, False], ids=["names", "features"])
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 120))
@settings(max_examples=15, deadline=None)
def test_late_outcomes_in_any_order_are_the_batch_solution(
    algorithm: str, seed: int, count: int, *, names: bool
) -> None:
    """Examples at reward 0 or more, corrected in any order: the probabilities are those of the final rewards."""
    rng = np.random.default_rng(seed)
    x = np.eye(4)[rng.integers(0, 4, count)] if names else rng.standard_normal((count, 4))
    at_s = 1e9 + rng.random(count) * 3e6
    reward = rng.random(count) if algorithm == "beta_bernoulli" else rng.standard_normal(count) * 10.0
    parts = split(reward, seed)
    batch, late = (made(algorithm, half_life="10d") for _ in range(2))
    batch.learn(x, reward, at_s=at_s)
    first = rng.permutation(count)
    for piece in np.array_split(first, 3):
        late.learn(x[piece], parts[0][piece], at_s=at_s[piece])
    rest = list(itertools.product(range(count), (1, 2)))
    for index in rng.permutation(len(rest)):
        row, part = rest[index]
        late.correct(x[row : row + 1], parts[part][row : row + 1], at_s=at_s[row : row + 1])
    assert np.allclose(asked(late), asked(batch), atol=EXACT)


def test_successes_of_named_arms_may_come_in_portions(algorithm: str) -> None:
    """Rows that repeat, without times: a success of 1 that came as 0.4 and 0.6 is one that came at once."""
    rng = np.random.default_rng(8)
    for count in (3, 40, 400):
        x, reward = np.eye(4)[rng.integers(0, 4, count)], (rng.random(count) < 0.3).astype(float)
        batch, late = made(algorithm), made(algorithm)
        batch.learn(x, reward)
        late.learn(x, np.zeros(count))
        for share in (0.4, 0.6):
            late.correct(x, share * reward)
        assert np.allclose(late.probabilities(np.eye(4)), batch.probabilities(np.eye(4)), atol=EXACT)


def test_a_lead_by_rounding_is_none() -> None:
    """SquareCB gives arms whose means differ by rounding the same."""
    mean = np.array([[0.3, np.nextafter(0.3, 1.0), 0.1]])
    belief = Belief(mean, np.full((1, 3), 0.05), np.full((1, 3), 90.0), 0.5, Outlook(1e6, is_known=False), np.copy)
    found = RULES["squarecb"](belief, PolicySpec("squarecb"))[0]
    assert found[0] == found[1] > found[2]


def test_pieces_are_as_good_as_one_batch(algorithm: str) -> None:
    """Learning one by one, in any order, with weights and ages, ends where one batch ends, to 1e-9."""
    rng = np.random.default_rng(6)
    x, reward, weight = rows(200), rng.random(200), rng.random(200) * 3
    at_s = 1e9 + rng.random(200) * 1e7
    whole, parts = (made(algorithm, half_life="3d") for _ in range(2))
    whole.learn(x, reward, weight, at_s)
    for index in rng.permutation(200):
        one = slice(index, index + 1)
        parts.learn(x[one], reward[one], weight[one], at_s[one])
    assert np.allclose(asked(parts), asked(whole), atol=EXACT)


@pytest.mark.parametrize("timed", [True, False])
def test_a_weight_is_how_often_an_example_was_there(algorithm: str, *, timed: bool) -> None:
    """Weights 0, 1, 2 and 3 are so many examples, as to what is known and to how many there were."""
    rng = np.random.default_rng(9)
    x, reward, weight = rows(80), (rng.random(80) < 0.3).astype(float), rng.integers(0, 4, 80)
    at_s = 1e9 + rng.random(80) * 1e6
    weighed, repeated = (made(algorithm, half_life="3d", horizon=500) for _ in range(2))
    weighed.learn(x, reward, weight, at_s if timed else None)
    often = np.repeat(np.arange(80), weight)
    repeated.learn(x[often], reward[often], at_s=at_s[often] if timed else None)
    assert np.allclose(asked(weighed), asked(repeated), atol=EXACT)


def test_what_has_faded_to_nothing_leaves_no_trace_of_its_order(algorithm: str) -> None:
    """Learning over thousands of half-lives, one by one, ends where one batch ends, to 1e-9."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x, reward = np.round(rng.standard_normal((8, 4))), rng.random(8)
        at_s = 1e9 + rng.random(8) * 3e7
        whole, parts = (made(algorithm, half_life="1h") for _ in range(2))
        whole.learn(x, reward, at_s=at_s)
        for index in range(8):
            one = slice(index, index + 1)
            parts.learn(x[one], reward[one], at_s=at_s[one])
        assert np.allclose(parts.probabilities(x), whole.probabilities(x), atol=EXACT)


def test_an_arm_that_has_faded_to_nothing_gives_no_warning(algorithm: str) -> None:
    """A division by what is left of an example after a thousand half-lives would overflow."""
    policy = made(algorithm, 2, half_life=1)
    for arm, at_s in ((0, 0.0), (1, 900.0), (1, 1060.0)):
        policy.learn(np.eye(2)[[arm]], [1.0], at_s=[at_s])
    assert is_distribution(policy.probabilities(np.eye(2)))


def test_rewards_that_cancel_were_none(algorithm: str) -> None:
    """Rewards taken back in portions leave what rounding leaves: no arm is preferred for that."""
    x, reward = np.eye(4), np.array([0.3, 0.7, 1.1, 0.1])
    policy = made(algorithm)
    policy.learn(x, reward)
    for share in (0.1, 0.2, 0.7):
        policy.correct(x, -share * reward)
    assert np.allclose(policy.probabilities(x), 0.25, atol=EXACT)


@pytest.mark.parametrize("algorithm", LEARNING)
def test_the_order_of_outcomes_of_different_worth_does_not_matter(algorithm: str) -> None:
    """Of arms that are names, with outcomes worth 50 and 1: the largest first or last, together or apart."""
    x, reward = np.eye(2)[np.arange(200) % 2], np.where(np.arange(200) % 7 == 0, 50.0, np.arange(200) % 3 == 0)
    found = []
    for order in (np.arange(200), np.argsort(reward, kind="stable"), np.argsort(-reward, kind="stable")):
        policy = made(algorithm, 2)
        for piece in np.array_split(order, 200):
            policy.learn(x[piece], reward[piece])
        found.append(policy.probabilities(np.eye(2)))
    assert np.allclose(found, found[0], atol=EXACT)


@pytest.mark.parametrize("algorithm", LEARNING)
def test_half_life_lets_the_past_fade(algorithm: str) -> None:
    """Ten half-lives after the better arm has changed, the new one is preferred; without a half-life it is not."""
    x, old = np.eye(2).repeat(500, axis=0), np.repeat([0.9, 0.1], 500)
    rewards = [(np.random.default_rng(7).random(1000) < p).astype(float) for p in (old, old[::-1])]
    likes = []
    for half_life in ("1d", None):
        policy = made(algorithm, 2, half_life=half_life)
        for _ in range(3):
            policy.learn(x, rewards[0], at_s=np.full(1000, 1e9))
        policy.learn(x, rewards[1], at_s=np.full(1000, 1e9 + 10 * 86400.0))
        likes.append(policy.probabilities(np.eye(2))[1])
    assert likes[0] > 0.5 > likes[1]


def test_thousands_of_arms_are_answered(algorithm: str) -> None:
    """5,000 arms with 32 features each."""
    policy = taught(algorithm, dim=32)
    assert is_distribution(policy.probabilities(rows(5000, 32)))


def test_memory_does_not_grow_with_examples(algorithm: str) -> None:
    """A policy of 20,000 examples has as many bytes as one of 200."""
    sizes = []
    for count in (200, 20_000):
        policy = made(algorithm)
        policy.learn(np.eye(4)[np.arange(count) % 4], np.ones(count))
        sizes.append(len(policy.to_bytes()))
    assert sizes[0] == sizes[1]


def test_rows_that_name_arms_are_bounded() -> None:
    """beta_bernoulli refuses the 10,001st distinct row and changes nothing."""
    policy = made("beta_bernoulli", 1)
    policy.learn(np.arange(10_000.0)[:, None], np.zeros(10_000))
    before = policy.to_bytes()
    with pytest.raises(ValueError, match="distinct rows"):
        policy.learn([[-1.0]], [1.0])
    assert policy.to_bytes() == before


def test_what_is_drawn_is_what_was_promised(algorithm: str) -> None:
    """Draws by key have the frequencies of the probabilities: chi-square, 4 degrees of freedom, wrong once in 10^6."""
    p = taught(algorithm).probabilities(rows(5))
    found = np.bincount([draw(p, f"d{index}".encode()) for index in range(4000)], minlength=5)
    assert (((found - 4000 * p) ** 2) / (4000 * p)).sum() < 33.4
