"""`decisioning evaluate`: from files to a table, JSON, a picture and an exit code."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decisioning.evaluation import BLOCKS, Candidate, Choices, LogError, logged, probabilities
from streams.cli import main
from streams.evaluation_log import MAX_LINE_BYTES, read
from streams.failure import Failure

ARMS = ("plain", "offer")
RATES = {"plain": 0.1, "offer": 0.2}


def example(number: int, arm: str, reward: float = 0.0, **more: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "decision_id": f"d{number}",
        "policy": "cart/subject",
        "arm": arm,
        "propensity": 0.5,
        "context": {"fatigue": 0.1 * (number % 5)},
        "reward": reward,
        "correction": False,
        "at": f"2026-11-{1 + number % 28:02d}T09:00:00.000Z",
    } | more


def examples(rows: int = 2000) -> list[dict[str, Any]]:
    """Examples and, after all of them, the corrections of those that were rewarded."""
    rng = np.random.default_rng(1)
    arms = [ARMS[int(n)] for n in rng.integers(0, 2, rows)]
    found = [example(n, arm) for n, arm in enumerate(arms)]
    rewarded = [n for n, arm in enumerate(arms) if rng.random() < RATES[arm]]
    return found + [example(n, arms[n], 1.0, correction=True, delta=1.0) for n in rewarded]


def decision(number: int, eligible: tuple[str, ...] = ARMS) -> dict[str, Any]:
    arms = {"subject": dict.fromkeys(eligible, 1.0 / len(eligible)), "channel": {"email": 1.0}}
    return {"decision_id": f"d{number}", "campaign": "cart", "action": "send", "arms": arms}


def written(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


def test_examples_are_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Value, intervals, effective rows, overlap and gain of each policy; corrections belong to their examples."""
    log = written(tmp_path / "e.jsonl", examples())
    code, out, _ = run(capsys, "--log", log, "--policy", "uniform", "--policy", "arm:offer", "--json")
    assert code == 0
    (choice,) = json.loads(out)["choices"]
    assert choice["choice"] == "cart/subject"
    uniform, offer = choice["policies"]
    assert uniform["value"] == pytest.approx(choice["logged"]["value"], abs=0.005)
    assert uniform["effective_sample_size"] == pytest.approx(2000)
    assert offer["low"] < 0.2 < offer["high"]
    assert offer["low"] <= offer["fixed"]["low"] < offer["fixed"]["high"] <= offer["high"]
    assert offer["effective_sample_size"] == pytest.approx(choice["arms"]["offer"]["rows"])
    assert offer["estimates"]["snips"]["value"] == pytest.approx(choice["arms"]["offer"]["reward"])
    assert offer["promote"]
    assert offer["difference"]["low"] > 0.0
    assert not uniform["promote"]


def test_the_table_says_it_to_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row for each estimator, the arms as logged, and a sentence for each policy."""
    log = written(tmp_path / "e.jsonl", examples())
    code, out, _ = run(capsys, "--log", log, "--policy", "arm:offer", "--policy", "thompson:explore=0.1")
    assert code == 0
    for word in (
        "as logged",
        "ips",
        "snips",
        "dr",
        "always valid",
        "worth rows",
        "overlap",
        "arm:offer: the challenger",
    ):
        assert word in out


def test_a_learning_policy_prefers_what_was_better() -> None:
    """Replayed Thompson sampling begins with nothing, and later chooses the better arm nearly always."""
    choices = Choices()
    for record in examples(4000):
        choices.example(record, 0.0)
    rows = choices.select(None, None)["cart/subject"]
    log, arms = logged(rows)
    assert arms == ["offer", "plain"]
    found = probabilities(Candidate.of("thompson"), rows, arms, log.context)
    first = len(rows) // BLOCKS
    assert (found[:first] == 0.5).all()
    assert found[-first:, 0].mean() > 0.9
    assert np.allclose(found.sum(axis=1), 1.0)


def test_no_row_is_judged_by_a_model_that_has_seen_it() -> None:
    """Turning the rewards of the last block around changes no probability."""
    choices = Choices()
    for record in examples():
        choices.example(record, 0.0)
    rows = choices.select(None, None)["cart/subject"]
    log, arms = logged(rows)
    before = probabilities(Candidate.of("thompson"), rows, arms, log.context)
    for row in rows[-len(rows) // BLOCKS :]:
        row.reward = 1.0 - row.reward
    assert np.array_equal(before, probabilities(Candidate.of("thompson"), rows, arms, log.context))


def test_a_decision_log_knows_which_arms_slept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the decision log, uniform is uniform over the eligible arms; alone it has no rewards and cannot answer."""
    records, third = examples(600), ("plain", "third")
    for number in range(0, 600, 3):
        records[number]["arm"] = third[number % 2]
    log = written(tmp_path / "l.jsonl", [decision(n, ARMS if n % 3 else third) for n in range(600)])
    source = written(tmp_path / "e.jsonl", records)
    code, out, _ = run(capsys, "--log", log, "--examples", source, "--policy", "uniform", "--json")
    (choice,) = json.loads(out)["choices"]
    assert code == 0
    assert choice["policies"][0]["mean_weight"] == 1.0
    assert choice["policies"][0]["overlap"] == 1.0
    code, _, err = run(capsys, "--log", log, "--policy", "uniform")
    assert code == 1
    assert "has no rewards" in err
    assert "--examples" in err


def test_a_row_of_propensity_1_had_one_arm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a decision log, the policy has no choice there either."""
    records = [record | ({"propensity": 1.0} if int(record["decision_id"][1:]) % 3 else {}) for record in examples(600)]
    log = written(tmp_path / "e.jsonl", records)
    _, out, _ = run(capsys, "--log", log, "--policy", "uniform", "--json")
    assert json.loads(out)["choices"][0]["policies"][0]["mean_weight"] == 1.0


def test_a_csv_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns arm, propensity, reward and context, also gzipped; context as JSON or in columns of its own."""
    lines = ["arm,propensity,reward,context,context_age"]
    lines += [f'{"ab"[n % 2]},0.5,{n % 3 % 2},"{{""x"": {n % 7}}}",{n % 5}' for n in range(900)]
    (tmp_path / "l.csv").write_text("\n".join(lines) + "\n")
    with gzip.open(tmp_path / "l.csv.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    outs = []
    for name in ("l.csv", "l.csv.gz"):
        code, out, _ = run(capsys, "--log", tmp_path / name, "--policy", '{"a": 1, "b": 3}', "--json")
        assert code == 0
        outs.append(json.loads(out)["choices"])
    assert outs[0] == outs[1]
    assert outs[0][0]["policies"][0]["estimates"]["snips"]["value"] == pytest.approx(1 / 3, abs=0.01)
    rows = read(tmp_path / "l.csv", None).select(None, None)["log"]
    assert set(rows[0].names) == {"x", "age"}


def test_a_byte_order_mark_is_no_part_of_the_log(tmp_path: Path) -> None:
    """Examples and CSV as some editors and spreadsheets save them, also gzipped, with CRLF."""
    lines = "".join(json.dumps(record) + "\r\n" for record in examples(50))
    table = "arm,propensity,reward\r\na,0.5,1\r\nb,0.5,0\r\n"
    for name, text, rows in (("e.jsonl", lines, 50), ("l.csv", table, 2)):
        (tmp_path / name).write_bytes(text.encode("utf-8-sig"))
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode("utf-8-sig")))
        for path in (tmp_path / name, tmp_path / f"{name}.gz"):
            assert [len(found) for found in read(path, None).select(None, None).values()] == [rows]


def test_a_log_that_cannot_answer_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1 with the reason and a remedy, and the numbers all the same."""
    log = written(tmp_path / "e.jsonl", examples(20))
    code, out, _ = run(capsys, "--log", log, "--policy", "arm:offer")
    assert code == 1
    assert "cannot say" in out
    assert "give a longer log" in out
    one_arm = written(tmp_path / "o.jsonl", [example(n, "plain", propensity=1.0) for n in range(50)])
    code, _, err = run(capsys, "--log", one_arm, "--policy", "uniform")
    assert (code, "one arm only" in err) == (1, True)


GOOD = json.dumps(example(0, "plain"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is empty"),
        (GOOD + "\n" + GOOD[:40], ":2: not JSON: the line is cut off"),
        (GOOD + "\n" + GOOD.replace("0.5", "NaN", 1) + "\n", ":2: not JSON"),
        (GOOD + "\n[1]\n", ":2: expected a record"),
        (GOOD + "\n" + GOOD + "\n", ":2: decision d0 has a second example"),
        (GOOD.replace('"propensity": 0.5', '"propensity": 0'), ":1: propensity is 0"),
        (GOOD.replace('"propensity": 0.5, ', ""), ":1: propensity is missing"),
        (GOOD.replace('"arm": "plain"', '"arm": 3'), ":1: arm is 3; expected a text"),
        (GOOD.replace('"reward": 0.0', '"reward": 1e300'), ":1: reward is 1e+300"),
        (GOOD.replace('"reward": 0.0', '"reward": "x"'), ":1: reward is 'x'"),
        (GOOD.replace('{"fatigue": 0.0}', '{"fatigue": null}'), ":1: fatigue is None"),
        (GOOD.replace("2026-11-01T09:00:00.000Z", "yesterday"), ":1: at is 'yesterday'"),
        ('{"a": "' + "x" * MAX_LINE_BYTES + '"}\n', "not JSON"),
        (GOOD + '\n{"a": "' + "x" * MAX_LINE_BYTES + '"}\n', ":2: longer than"),
        ('{"what": 1}\n', "neither an example nor a decision"),
        ("arm,reward\na,1\n", ":1: no column 'propensity'"),
        ("arm,propensity,reward\na,0.5,1\na,0.5\n", ":3: another number of fields"),
        ("arm,propensity,reward\na,0.5,nan\n", ":2: reward is nan"),
        ("arm,propensity,reward\na,0.5,inf\n", ":2: reward is inf"),
        ("arm,propensity,reward\na,much,1\n", ":2: propensity is 'much'"),
        ("arm,propensity,reward\na,1.5,1\n", ":2: propensity is 1.5"),
        ("arm,propensity,reward,context\na,0.5,1,{\n", ":2: context is '{', not JSON"),
        ('arm,propensity,reward,arms\na,0.5,1,"{""b"": 1}"\n', ":2: arms is"),
        ("\x00\x01", "no column 'arm'"),
    ],
)
def test_bad_files_are_refused_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    """One line on stderr with file and line, exit 2."""
    path = tmp_path / "bad"
    path.write_text(text)
    code, out, err = run(capsys, "--log", path, "--policy", "uniform")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert str(path) in err
    assert says in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--policy", "magic"], "is no policy"),
        (["--policy", "arm:nope"], "no such arm"),
        (["--policy", "thompson:explore=7"], "explore is 7"),
        (["--policy", "{"], "is not JSON"),
        (["--policy", "{}"], "is no policy"),
        (["--policy", "uniform", "--method", "x"], "--method x"),
        (["--policy", "uniform", "--alpha", "2"], "--alpha 2"),
        (["--policy", "uniform", "--margin", "nan"], "--margin nan"),
        (["--policy", "uniform", "--choice", "nope"], "no such choice"),
        (["--policy", "uniform", "--examples", "other"], "goes with a decision log"),
        ([], "policy"),
    ],
)
def test_wrong_use_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    """One line on stderr, exit 2."""
    code, _, err = run(capsys, "--log", written(tmp_path / "e.jsonl", examples(100)), *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert says in err


def test_a_missing_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And a gzip that is cut off."""
    code, _, err = run(capsys, "--log", tmp_path / "none", "--policy", "uniform")
    assert (code, "no such file" in err) == (2, True)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(GOOD.encode() * 100)[:60])
    with pytest.raises(Failure, match="cut"):
        read(tmp_path / "cut.gz", None)


def test_corrections_without_their_example_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are left out, and said."""
    log = written(tmp_path / "e.jsonl", [*examples(), example(9999, "plain", 1.0, correction=True, delta=1.0)])
    code, _, err = run(capsys, "--log", log, "--policy", "uniform")
    assert (code, "1 records of decisions that are not in the log" in err) == (0, True)


def test_policies_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--png writes a picture."""
    log = written(tmp_path / "e.jsonl", examples(300))
    code, _, _ = run(capsys, "--log", log, "--policy", "uniform", "--policy", "arm:plain", "--png", tmp_path / "p.png")
    assert code == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_an_arm_that_was_not_eligible_cannot_have_been_chosen() -> None:
    """A decision log that contradicts its examples is refused."""
    choices = Choices()
    choices.example(example(0, "plain"), 0.0)
    with pytest.raises(LogError, match="not eligible"):
        choices.narrow({("d0", "cart/subject"): {"offer": 1.0}})
