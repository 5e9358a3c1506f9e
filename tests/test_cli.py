"""The command line: exit codes, one line for what goes wrong, and what the commands print."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streams import cli

COMMANDS = (
    "check",
    "schema",
    "worker",
    "backtest",
    "explain",
    "lift",
    "pause",
    "resume",
    "erase",
    "export",
    "pseudonym",
    "simulate",
    "demo",
    "copy",
    "copy suggest",
    "copy review",
    "topics",
    "topics create",
    "version",
)
CONFIG = """\
version: 1
timezone: UTC
channels: {email: {address: email}}
campaigns:
  - id: cart
    trigger: {event: Product Added, delay: 30m, cancel_on: [Order Completed]}
    channels: [email]
    variants: {subject: [{id: a, text: "Hello {{ user.first_name | default: 'you' }}"}]}
"""
LEARNED = """\
version: 1
timezone: UTC
channels: {email: {address: email}}
campaigns:
  - id: cart
    trigger: {event: Product Added, per: properties.id}
    variants: {subject: [{id: a, text: A}, {id: b, text: B}]}
    goal: {event: Order Completed, within: 1h}
"""
EVENTS: list[dict[str, Any]] = [
    {"messageId": "m1", "type": "identify", "userId": "u1", "traits": {"email": "a@b.c"}},
    {"messageId": "t1", "type": "track", "userId": "u1", "event": "Product Added"},
]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DECISIONING_"):
            monkeypatch.delenv(name)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command here; gives exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        signal.signal(signal.SIGINT, before)
        out, err = capfd.readouterr()
        return int(caught.value.code or 0), out, err

    return call


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A directory with a configuration and a file of events."""
    (tmp_path / "shop.yaml").write_text(CONFIG)
    lines = [json.dumps(event | {"timestamp": "2026-03-02T10:00:00Z"}) for event in EVENTS] + ["not json"]
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def _one_line(err: str) -> str:
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_everywhere_with_an_example(run: Any, command: str) -> None:
    """Every command explains itself and shows one call."""
    code, out, err = run(*command.split(), "--help")
    assert (code, err) == (0, "")
    assert "Usage: decisioning" in out
    assert "Example: decisioning" in out


@pytest.mark.parametrize("arguments", [(), ("topics",), ("copy",)])
def test_without_a_command_the_help_is_shown(run: Any, arguments: tuple[str, ...]) -> None:
    """It is wrong use all the same."""
    code, out, _ = run(*arguments)
    assert code == 2
    assert "Commands:" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("nope",),
        ("check",),
        ("check", "a", "b"),
        ("backtest", "--config", "x.yaml"),
        ("simulate", "--people", "many"),
        ("simulate", "--nope"),
        ("schema", "nope"),
        ("simulate", "--start", "yesterday"),
        ("worker", "--config", "x.yaml", "--web-port", "none"),
        ("worker", "--delivery", "never"),
        ("worker",),
        ("topics", "create", "--partitions", "0"),
        ("erase",),
        ("erase", ""),
        ("erase", "u1", "--timeout", "0"),
        ("export", "x" * 513),
        ("export", "\udcff"),
        ("pseudonym", "u1"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(run: Any, arguments: tuple[str, ...]) -> None:
    """Unknown commands, missing arguments and impossible values."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    _one_line(err)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "MISSING"),
        ("backtest", "--config", "MISSING", "--events", "events.jsonl"),
        ("backtest", "--config", "shop.yaml", "--events", "MISSING"),
        ("backtest", "--config", "shop.yaml", "--events", "events.jsonl", "--log", "MISSING/out"),
        ("backtest", "--config", "shop.yaml", "--events", "."),
        ("explain", "--log", "MISSING", "d"),
        ("worker", "--config", "MISSING"),
    ],
)
def test_a_file_that_cannot_be_had_is_named(
    run: Any, shop: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """One line with the file's name and what to check, exit 2."""
    monkeypatch.chdir(shop)
    code, _, err = run(*arguments)
    assert code == 2
    assert "check the path" in _one_line(err)


def test_a_service_that_does_not_answer_is_named(run: Any, shop: Path) -> None:
    """One line with the address and where to set it, exit 1."""
    address = "127.0.0.1:1"
    for arguments in (
        ("topics", "create", "--kafka", address),
        ("worker", "--config", shop / "shop.yaml", "--kafka", address),
        ("explain", "--kafka", address, "d"),
    ):
        code, _, err = run(*arguments)
        assert code == 1
        assert _one_line(err).startswith(f"decisioning: Kafka at {address} does not answer")
        assert "DECISIONING_KAFKA" in err


def test_unknown_settings_are_named(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error in a variable's name is a warning, not silence."""
    monkeypatch.setenv("DECISIONING_KAFKAS", "x")
    _, _, err = run("topics", "create", "--kafka", "127.0.0.1:1")
    assert "warning: DECISIONING_KAFKAS is not a setting and has no effect; did you mean DECISIONING_KAFKA?" in err


def test_check_of_a_good_file(run: Any, shop: Path) -> None:
    """One line, exit 0."""
    path = shop / "shop.yaml"
    assert run("check", path) == (0, f"{path}: ok, 1 campaign\n", "")


def test_check_of_a_bad_file(run: Any, shop: Path) -> None:
    """Every error on a line of its own on stderr, then their number; exit 1."""
    path = shop / "shop.yaml"
    path.write_text(CONFIG.replace("30m", "30x").replace("timezone: UTC", "timezone: Mars"))
    code, out, err = run("check", path)
    assert (code, out) == (1, "")
    *findings, verdict = err.splitlines()
    assert len(findings) == 2
    assert all(line.startswith(f"{path}:") and ": error: " in line for line in findings)
    assert verdict == f"{path}: 2 errors"


def test_check_as_json(run: Any, shop: Path) -> None:
    """The same for programs."""
    path = shop / "shop.yaml"
    code, out, _ = run("check", "--json", path)
    report = json.loads(out)
    assert (code, report["ok"], report["campaigns"], report["findings"]) == (0, True, ["cart"], [])
    path.write_text(CONFIG.replace("30m", "30x"))
    code, out, err = run("check", "--json", path)
    report = json.loads(out)
    assert (code, err, report["ok"]) == (1, "", False)
    assert report["findings"][0].keys() >= {"line", "column", "field", "value", "expected", "remedy"}


def test_check_explains_what_a_file_means(run: Any, shop: Path) -> None:
    """In sentences under the verdict, or in the JSON; of a bad file there is nothing to say."""
    path = shop / "shop.yaml"
    code, out, err = run("check", "--explain", path)
    assert (code, err) == (0, "")
    assert out.startswith(f"{path}: ok, 1 campaign\n\nfor all campaigns:\n  People can be reached by email.\n")
    assert "\n\ncart:\n  It begins with Product Added, and is decided 30 minutes later" in out
    told = json.loads(run("check", "--explain", "--json", path)[1])["explained"]
    assert list(told) == ["for all campaigns", "cart"]
    path.write_text(CONFIG.replace("30m", "30x"))
    assert run("check", "--explain", path)[:2] == (1, "")


def test_a_bad_configuration_stops_other_commands(run: Any, shop: Path) -> None:
    """They show the errors and use nothing of it."""
    path = shop / "shop.yaml"
    path.write_text(CONFIG.replace("30m", "30x"))
    code, out, err = run("backtest", "--config", path, "--events", shop / "events.jsonl")
    assert (code, out) == (2, "")
    assert f"{path}:" in err
    assert "cannot be used; mend 1 error" in err


def test_backtest_writes_what_was_asked_for(run: Any, shop: Path) -> None:
    """Decisions, log and examples go to their files, dead letters are named, a summary says how much it was."""
    outputs = {name: shop / f"{name}.jsonl" for name in ("decisions", "log", "examples")}
    flags = [part for name, path in outputs.items() for part in (f"--{name}", path)]
    arguments = ("backtest", "--config", shop / "shop.yaml", "--events", shop / "events.jsonl")
    code, out, err = run(*arguments, "--until", "2026-03-02T11:00:00Z", *flags)
    assert code == 0
    assert out == "2 events, 1 decisions (1 send), 1 dead letters\n"
    assert "events.jsonl: event 3: not_json" in err
    decisions, log, examples = (
        [json.loads(line) for line in path.read_text().splitlines()] for path in outputs.values()
    )
    assert [decision["content"]["subject"] for decision in decisions] == ["Hello you"]
    assert [entry["decision_id"] for entry in log] == [decisions[0]["decision_id"]]
    assert {example["decision_id"] for example in examples} == {decisions[0]["decision_id"]}


def test_backtest_to_stdout_and_until(run: Any, shop: Path) -> None:
    """`-` is stdout, which then holds nothing else; before the timer is due nothing is decided."""
    arguments = ("backtest", "--config", shop / "shop.yaml", "--events", shop / "events.jsonl", "--log", "-")
    code, out, err = run(*arguments, "--no-learn")
    assert (code, out) == (0, "")
    assert "0 decisions" in err
    _, out, _ = run(*arguments, "--until", "2026-03-02T11:30:00+01:00")
    assert json.loads(out)["action"] == "send"


def test_backtest_is_repeatable(run: Any, shop: Path) -> None:
    """Same input, same bytes."""
    arguments = ("backtest", "--config", shop / "shop.yaml", "--events", shop / "events.jsonl", "--log", "-")
    until = ("--until", "2026-03-02T11:00:00Z")
    assert run(*arguments, *until) == run(*arguments, *until)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--log", "events.jsonl"), "--log events.jsonl: this is the file of --events"),
        (("--decisions", "./x/../shop.yaml"), "--decisions x/../shop.yaml: this is the file of --config"),
        (("--examples", "soft"), "--examples soft: this is the file of --events"),
        (("--log", "hard"), "--log hard: this is the file of --events"),
        (("--decisions", "new", "--log", "x/../new"), "--log x/../new: this is the file of --decisions"),
        (("--log", "new", "--examples", "dangling"), "--examples dangling: this is the file of --log"),
        (("--models", "events.jsonl"), "--models events.jsonl: this is the file of --events"),
    ],
)
def test_backtest_never_writes_over_what_it_uses(
    run: Any, shop: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], said: str
) -> None:
    """An output that is an input or another output, by any name, is refused before a file is opened."""
    monkeypatch.chdir(shop)
    Path("x").mkdir()
    Path("soft").symlink_to("events.jsonl")
    Path("hard").hardlink_to("events.jsonl")
    Path("dangling").symlink_to("new")
    before = {path: path.read_bytes() for path in (Path("shop.yaml"), Path("events.jsonl"))}
    code, out, err = run("backtest", "--config", "shop.yaml", "--events", "events.jsonl", *flags)
    assert (code, out) == (2, "")
    assert _one_line(err) == f"decisioning: {said}; write to another one\n"
    assert {path: path.read_bytes() for path in before} == before
    assert not Path("new").exists()


def test_backtest_outputs_may_share_what_is_no_file(run: Any, shop: Path) -> None:
    """Stdout and /dev/null take as many as are sent there."""
    arguments = ("backtest", "--config", shop / "shop.yaml", "--events", shop / "events.jsonl")
    for shared in ("-", os.devnull):
        assert run(*arguments, "--log", shared, "--decisions", shared)[0] == 0


def test_backtest_never_writes_over_its_stdin(shop: Path) -> None:
    """`--events -` may be a file as well."""
    events = shop / "events.jsonl"
    before = events.read_bytes()
    with (
        events.open("rb") as stdin,
        _spawn(
            "backtest", "--config", str(shop / "shop.yaml"), "--events", "-", "--log", str(events), stdin=stdin
        ) as process,
    ):
        _, err = process.communicate()
    assert process.returncode == 2
    assert "this is the file of --events" in _one_line(err)
    assert events.read_bytes() == before


def test_backtest_writes_a_report(run: Any, shop: Path) -> None:
    """A page beside the other outputs, which it does not change; never over a file that is read."""
    arguments = ("backtest", "--config", shop / "shop.yaml", "--events", shop / "events.jsonl")
    until = ("--until", "2026-03-02T11:00:00Z")
    page = shop / "report.html"
    code, out, _ = run(*arguments, *until, "--report", page)
    assert (code, out) == (0, "2 events, 1 decisions (1 send), 1 dead letters\n")
    assert page.read_text().startswith("<!doctype html>")
    assert "What shop.yaml would have done" in page.read_text()
    assert run(*arguments, *until, "--report", "-")[1] == page.read_text()
    code, _, err = run(*arguments, "--report", shop / "events.jsonl")
    assert code == 2
    assert "this is the file of --events" in _one_line(err)


@pytest.mark.parametrize("until", ["tomorrow", "2026-03-02T11:00:00", "2026-03-02", "1e9"])
def test_a_time_needs_its_offset(run: Any, shop: Path, until: str) -> None:
    """A time that could mean several is refused."""
    arguments = ("backtest", "--config", shop / "shop.yaml", "--events", shop / "events.jsonl")
    code, _, err = run(*arguments, "--until", until)
    assert code == 2
    assert "expected a time with its offset" in _one_line(err)


def test_explain_from_a_file(run: Any, shop: Path) -> None:
    """A decision in words, exit 0, also behind a byte order mark; an unknown one or a changed record exit 1."""
    log = shop / "log.jsonl"
    arguments = ("backtest", "--config", shop / "shop.yaml", "--events", shop / "events.jsonl")
    run(*arguments, "--until", "2026-03-02T11:00:00Z", "--log", log)
    record = json.loads(log.read_text())
    code, out, err = run("explain", "--log", log, record["decision_id"])
    assert (code, err) == (0, "")
    assert out.startswith("SENT: cart for u1 by email")
    (shop / "saved.jsonl").write_bytes(b"\xef\xbb\xbf" + log.read_bytes())
    assert run("explain", "--log", shop / "saved.jsonl", record["decision_id"]) == (0, out, "")
    code, out, err = run("explain", "--log", log, "unknown")
    assert (code, out) == (1, "")
    assert "no decision unknown" in _one_line(err)
    code, full, err = run("explain", "--log", log, "--full", "--config", shop / "shop.yaml", record["decision_id"])
    assert (code, err) == (0, "")
    assert full.startswith(out_of_marketer := run("explain", "--log", log, record["decision_id"])[1])
    assert f'  decision_id: "{record["decision_id"]}"' in full.removeprefix(out_of_marketer)
    record["random_draw"] = dict.fromkeys(record["random_draw"], 0.123)
    log.write_text(json.dumps(record))
    assert run("explain", "--log", log, record["decision_id"])[0] == 1


def test_explain_computes_again_what_was_learned(run: Any, shop: Path) -> None:
    """From its snapshot, else from the examples; a model that is not there is said to be missing."""
    (shop / "shop.yaml").write_text(LEARNED)
    events = [{"type": "identify", "userId": "u", "traits": {"email": "u@example.com"}}]
    for number in range(20):
        events.append({"type": "track", "userId": "u", "event": "Product Added", "properties": {"id": number}})
        if number % 3 == 0:
            events.append({"type": "track", "userId": "u", "event": "Order Completed"})
    stamped = [
        event | {"messageId": str(n), "timestamp": f"2026-03-02T10:{n:02}:00Z"} for n, event in enumerate(events)
    ]
    (shop / "events.jsonl").write_text("\n".join(map(json.dumps, stamped)))
    files = {name: shop / f"{name}.jsonl" for name in ("log", "examples", "models")}
    arguments = ("backtest", "--config", shop / "shop.yaml", "--events", shop / "events.jsonl")
    code, out, err = run(*arguments, *[part for name, path in files.items() for part in (f"--{name}", path)])
    assert (code, err) == (0, ""), out
    log = [json.loads(line) for line in files["log"].read_text().splitlines()]
    assert log[-1]["model_versions"].keys() == {"cart/subject"}
    explain = ("explain", "--log", files["log"], log[-1]["decision_id"])
    code, out, _ = run(*explain)
    assert (code, "with that model they can be computed again" in out) == (0, True)
    code, out, _ = run(*explain, "--models", files["models"])
    assert (code, "which was not found" in out) == (0, True)
    code, out, _ = run(*explain, "--models", files["models"], "--examples", files["examples"], "--full")
    assert (code, "computed again from it" in out) == (0, True)
    assert "was expected to bring" in out
    arms = log[-1]["arms"]["subject"]
    log[-1]["arms"]["subject"] = dict(zip(arms, reversed(arms.values()), strict=True))
    files["log"].write_text(json.dumps(log[-1]))
    code, out, _ = run(*explain, "--examples", files["examples"])
    assert (code, "subject: the model gives" in out) == (1, True)
    files["models"].write_text("{}")
    code, _, err = run(*explain, "--models", files["models"])
    assert (code, "line 1: snapshot cannot be read" in _one_line(err)) == (1, True)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"arms": ...}, "Object missing required field `arms`"),
        ({"arms": "a"}, "Expected `object`, got `str` - at `$.arms`"),
        ({"channel": "sms"}, "the arms of 'channel' have no 'sms'"),
        ({"action": "a\nb"}, "Invalid enum value 'a\\nb' - at `$.action`"),
    ],
)
def test_a_damaged_record_is_one_line(run: Any, shop: Path, damage: dict[str, Any], said: str) -> None:
    """It says what is wrong with the record; exit 1."""
    log = shop / "log.jsonl"
    arguments = ("backtest", "--config", shop / "shop.yaml", "--events", shop / "events.jsonl")
    run(*arguments, "--until", "2026-03-02T11:00:00Z", "--log", log)
    record = json.loads(log.read_text())
    log.write_text(json.dumps({name: value for name, value in (record | damage).items() if value is not ...}))
    code, out, err = run("explain", "--log", log, record["decision_id"])
    assert (code, out) == (1, "")
    assert f": the record is incomplete: {said}; " in _one_line(err)


@pytest.mark.parametrize("what", ["events", "decisions", "decision-log", "examples", "config", "asyncapi"])
def test_schemas_are_json(run: Any, what: str) -> None:
    """Each of them is one JSON document on stdout."""
    code, out, err = run("schema", what)
    assert (code, err) == (0, "")
    assert isinstance(json.loads(out), dict)


def test_simulate_and_backtest_fit(run: Any, shop: Path) -> None:
    """What the one writes the other reads: every sound event counts, every broken one is a dead letter."""
    flags = ("--people", "50", "--rate", "10", "--seconds", "60", "--odd", "0.1")
    code, out, err = run("simulate", *flags)
    assert (code, err) == (0, "")
    assert run("simulate", *flags)[1] == out
    (shop / "made.jsonl").write_text(out)
    code, summary, _ = run("backtest", "--config", shop / "shop.yaml", "--events", shop / "made.jsonl")
    assert code == 0
    events, letters = int(summary.split(" ", 1)[0]), int(summary.rsplit(" ", 3)[1])
    duplicates = len(out.splitlines()) - events - letters
    assert 500 < events < 700
    assert letters > 5
    assert 0 <= duplicates < 30


def test_an_unforeseen_error_is_one_line_too(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace goes to a file, for the report."""

    def fail(*_: object) -> None:
        raise LookupError("what nobody\nthought of")

    monkeypatch.setattr("importlib.metadata.version", fail)
    code, _, err = run("version")
    assert code == 1
    line = _one_line(err)
    assert line.startswith("decisioning: internal error: LookupError: what nobody thought of; please report it with ")
    trace = Path(line.split()[-1])
    assert "Traceback" in trace.read_text()
    trace.unlink()


def _spawn(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "streams", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """`decisioning simulate | head -1` ends without a word."""
    with _spawn("simulate", "--rate", "1000", "--seconds", "1000") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("{")
        process.stdout.close()
        assert process.stderr.read() == ""


def test_ctrl_c_is_exit_130() -> None:
    """Without a word either."""
    with _spawn("simulate", "--rate", "1000", "--seconds", "1e8") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == ""
    assert process.returncode == 130


def test_help_imports_nothing_heavy() -> None:
    """What makes a start slow is loaded by the commands that use it."""
    code = (
        "import sys\n"
        "from streams import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pydantic', 'faust', 'aiokafka', 'redis', 'liquid', 'river', 'matplotlib'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_backtest_needs_no_shell() -> None:
    """The core runs without Kafka's, Redis's and Faust's clients."""
    code = (
        "import sys\n"
        "import streams.backtesting\n"
        "heavy = {'faust', 'aiokafka', 'redis', 'river', 'matplotlib', 'aiohttp'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("nobody",), "choose one of cart"),
        (("a\nb",), "cannot be a campaign's id"),
        (("cart", "--reason", "x" * 501), "--reason"),
    ],
)
def test_a_pause_of_nothing_is_refused(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, words: tuple[str, ...], named: str
) -> None:
    """Wrong use, told in one line without asking Kafka: no such campaign, no such id, too long a reason."""
    file = tmp_path / "campaigns.yaml"
    file.write_text(CONFIG)
    code, out, err = run("pause", *words, "--config", file, "--kafka", "127.0.0.1:1")
    assert (code, out) == (2, "")
    assert named in err
    assert err.count("\n") == 1
