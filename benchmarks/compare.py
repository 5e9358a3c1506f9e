"""The same job on one broker by this worker and by what others offer, in turn, several times over.

    python -m benchmarks.compare [--passes 3] [--events 200000] [--only NAME] [--quick]

The job: Segment-like events of about 280 bytes on 8 partitions, 100,000 people; decode, decayed counts by person and
kind, one decision for each `Product Added` (18 %). Everybody reads the same backlog, broker, Redis and the peer share
the machine. CPU is the peer's alone, and its start is left out. Decisions and offsets are checked: what does not hold
stands in the table. A second table has the worker's CPU by stage. Results go to `out/bench/`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks import chart, stages
from benchmarks.peers.catalog import PEERS, WHOLE_FLOW, WORKER, LeftOutError, Peer, install
from benchmarks.race import Outcome, Race, run
from benchmarks.traffic import Line, events
from tests.services import ROOT, LocalKafka, LocalRedis, UnavailableError

OUT = ROOT / "out" / "bench"
SEED = 1


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Medians by peer as Markdown, the fastest first."""
    by_peer: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_peer.setdefault(outcome.peer, []).append(outcome)
    ours = by_peer.get(WORKER.name, [])
    own_cost = median(one.cpu_us for one in ours) if ours else None
    rows = []
    for name, some in by_peer.items():
        costs = [one.cpu_us for one in some]
        cost = median(costs)
        wrong = sorted({what for one in some for what in one.wrong})
        ratio = f"{cost / own_cost:.2f}" if own_cost else ""
        cells = (
            name, f"{median(one.events_per_s for one in some):,.0f}", f"{cost:.1f}",
            f"{min(costs):.1f} to {max(costs):.1f}", ratio,
            f"{median(one.peak_mb for one in some):,.0f}", str(len(some)), "; ".join(wrong) or "all there, once",
        )  # fmt: skip
        rows.append((median(one.events_per_s for one in some), cells))
    rows.sort(reverse=True)
    titles = ("peer", "events/s", "µs CPU per event", "passes from to", "to ours", "peak MB", "passes", "decisions")
    lines = [" | ".join(titles), "|".join(["---"] + ["--:"] * 6 + ["---"])]
    return [
        f"| {line} |" if line[0] != "-" else f"|{line}|" for line in [*lines, *(" | ".join(row) for _, row in rows)]
    ]


def main() -> int:
    """Run all; 0 if ours lost and doubled nothing."""
    given = _arguments()
    chosen = [peer for peer in PEERS if not given.only or any(word in peer.name for word in given.only)]
    if not chosen:
        print(f"no peer is called {given.only}; there are: {', '.join(peer.name for peer in PEERS)}", file=sys.stderr)
        return 2
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        try:
            broker = servers.enter_context(contextlib.closing(LocalKafka().start()))
            redis = servers.enter_context(contextlib.closing(LocalRedis().start()))
        except UnavailableError as error:
            print(f"no Kafka or Redis to measure on: {error}; make services installs what is missing", file=sys.stderr)
            return 2
        track = Track(broker, redis, Path(folder), given.events, 1.0 if given.quick else 4.0)
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        with Progress(*columns, console=Console(stderr=True)) as progress:
            for number in range(given.passes):
                for peer in random.Random(number).sample(chosen, len(chosen)):
                    track.go(progress, peer, f"pass {number + 1} of {given.passes}: {peer.name}")
            by_stage = _by_stage(track, progress, [peer for peer in (WORKER, WHOLE_FLOW) if peer in chosen])
    return _report(track, by_stage, load)


class Track:
    """Where the races are run, one after the other, and what they came to.

    Parameters
    ----------
    count
        Events of a pass.
    most
        How many times as many the fast ones get at most.
    """

    def __init__(self, broker: LocalKafka, redis: LocalRedis, folder: Path, count: int, most: float) -> None:
        self.count, self.most = count, most
        self.outcomes: list[Outcome] = []
        self.left_out: dict[str, str] = {}
        self.folder = folder
        self._broker, self._redis = broker, redis
        self._now_ms = int(time.time() * 1000)
        self._lines: dict[tuple[int, tuple[str, ...]], list[Line]] = {}
        self._races = 0

    def go(self, progress: Progress, peer: Peer, title: str, profile: Path | None = None) -> Outcome | None:
        """One race of a peer, unless it cannot run here; those with a profile do not count."""
        if peer.name in self.left_out:
            return None
        task = progress.add_task(title, total=None)
        self._races += 1
        race = Race(self._broker.bootstrap, self._redis.url, self.folder, f"r{self._races}")
        try:
            outcome = run(race, peer, self._events(int(self.count * min(peer.scale, self.most)), peer.job.mix), profile)
        except LeftOutError as error:
            self.left_out[peer.name] = str(error)
            progress.console.print(f"{peer.name}: left out, {error}")
            return None
        finally:
            race.clear()
            self._redis.flush()
            progress.remove_task(task)
        if profile is None:
            self.outcomes.append(outcome)
            progress.console.print(_line(outcome))
        return outcome

    def _events(self, count: int, mix: dict[str, int]) -> list[Line]:
        """The same for everybody with this job."""
        key = count, tuple(mix)
        if key not in self._lines:
            self._lines[key] = list(events(count, SEED, self._now_ms, mix))
        return self._lines[key]


def _by_stage(track: Track, progress: Progress, peers: Sequence[Peer]) -> list[str]:
    """Table of the worker's CPU by stage, from one more race of each under a sampling profiler."""
    try:
        install()
    except LeftOutError as error:
        return [f"No table by stage: {error}"]
    found = {}
    for peer in peers:
        profile = track.folder / "profile"
        outcome = track.go(progress, peer, f"where the CPU goes: {peer.name}", profile)
        if outcome is not None and profile.exists():
            costs = [one.cpu_us for one in track.outcomes if one.peer == peer.name]
            found[peer.name] = profile.read_text(), median(costs)
            profile.unlink()
    return stages.table(found) if found else []


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=3, help="how often everybody runs (default 3)")
    parser.add_argument("--events", type=int, default=200_000, help="of a pass; slow peers get fewer, fast ones more")
    parser.add_argument("--only", action="append", help="part of a peer's name; may be given again")
    parser.add_argument("--quick", action="store_true", help="one pass of 30,000 events: about two minutes")
    given = parser.parse_args()
    if given.quick:
        given.passes, given.events = 1, 30_000
    return given


def _line(outcome: Outcome) -> str:
    wrong = f", {'; '.join(outcome.wrong)}" if outcome.wrong else ""
    return f"{outcome.peer}: {outcome.events_per_s:,.0f} events/s, {outcome.cpu_us:.1f} µs an event{wrong}"


def _report(track: Track, by_stage: Sequence[str], load: float) -> int:
    outcomes = track.outcomes
    if not outcomes:
        return 1
    where = (
        f"{platform.machine()}, {os.cpu_count()} cores (load {load:.1f} before), Python {platform.python_version()}; "
        f"{track.count:,} events a pass, a tenth for Faust, {track.most:.0f} times for Kafka Streams and loops; "
        "start and warm-up left out"
    )
    left_out = [f"{name}: left out, {why}" for name, why in track.left_out.items()]
    lines = [*table(outcomes), "", where, *left_out, "", *by_stage]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "compare.md").write_text("\n".join(lines) + "\n")
    (OUT / "compare.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    chart.draw(outcomes, OUT / "compare.png")
    print("\n".join(lines))
    print(f"\n{(OUT / 'compare.png').relative_to(ROOT)} shows it")
    return 1 if any(outcome.wrong for outcome in outcomes if outcome.peer == WORKER.name) else 0


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # also in the background, where a shell has interrupts ignored
        signal.signal(number, signal.default_int_handler)
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
