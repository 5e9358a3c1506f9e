"""The same job on one broker by this worker and by what others offer, in turn, several times over.

    python -m benchmarks.compare [--passes 3] [--events 300000] [--only NAME] [--quick]

The job: Segment-like events of about 280 bytes on 8 partitions, 100,000 people; decode, decayed counts by person and
kind, one decision for each `Product Added` (18 %). Everybody reads the same backlog, broker, Redis and the peer share
the machine. CPU is the peer's alone, without the first tenth of its work. Decisions and offsets are checked: what does
not hold stands in the table. Results go to `out/bench/`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks import chart
from benchmarks.peers.catalog import PEERS, WORKER, LeftOutError, Peer
from benchmarks.race import Outcome, Race, run
from benchmarks.traffic import events
from tests.services import ROOT, LocalKafka, LocalRedis, UnavailableError

OUT = ROOT / "out" / "bench"
SLOWER = 10  # how many times fewer events the slow ones get
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
        cost = median(one.cpu_us for one in some)
        wrong = sorted({what for one in some for what in one.wrong})
        ratio = f"{cost / own_cost:.2f}" if own_cost else ""
        cells = (
            name, f"{median(one.events_per_s for one in some):,.0f}", f"{cost:.1f}", ratio,
            f"{median(one.peak_mb for one in some):,.0f}", str(len(some)), "; ".join(wrong) or "all there, once",
        )  # fmt: skip
        rows.append((median(one.events_per_s for one in some), cells))
    rows.sort(reverse=True)
    titles = ("peer", "events/s", "µs CPU per event", "to ours", "peak MB", "passes", "decisions")
    lines = [" | ".join(titles), "|".join(["---"] + ["--:"] * 5 + ["---"])]
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
    console = Console(stderr=True)
    outcomes: list[Outcome] = []
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        try:
            broker = servers.enter_context(contextlib.closing(LocalKafka().start()))
            redis = servers.enter_context(contextlib.closing(LocalRedis().start()))
        except UnavailableError as error:
            print(f"no Kafka or Redis to measure on: {error}; make services installs what is missing", file=sys.stderr)
            return 2
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        with Progress(*columns, console=console) as progress:
            for number in range(given.passes):
                order = random.Random(number).sample(chosen, len(chosen))
                for peer in order:
                    if peer.name in left_out:
                        continue
                    task = progress.add_task(f"pass {number + 1} of {given.passes}: {peer.name}", total=None)
                    race = Race(broker.bootstrap, redis.url, Path(folder), f"p{number}-{PEERS.index(peer)}")
                    try:
                        outcome = _one(race, peer, given.events)
                        outcomes.append(outcome)
                        progress.console.print(_line(outcome))
                    except LeftOutError as error:
                        left_out[peer.name] = str(error)
                        progress.console.print(f"{peer.name}: left out, {error}")
                    finally:
                        race.clear()
                        redis.flush()
                        progress.remove_task(task)
    return _report(outcomes, left_out, given.events)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=3, help="how often everybody runs (default 3)")
    parser.add_argument("--events", type=int, default=300_000, help="of a pass; slow peers get a tenth of it")
    parser.add_argument("--only", action="append", help="part of a peer's name; may be given again")
    parser.add_argument("--quick", action="store_true", help="one pass of 60,000 events: about two minutes")
    given = parser.parse_args()
    if given.quick:
        given.passes, given.events = 1, 60_000
    return given


def _one(race: Race, peer: Peer, count: int) -> Outcome:
    lines = list(events(count // SLOWER if peer.slow else count, SEED, int(time.time() * 1000), peer.job.mix))
    return run(race, peer, lines)


def _line(outcome: Outcome) -> str:
    wrong = f", {'; '.join(outcome.wrong)}" if outcome.wrong else ""
    return f"{outcome.peer}: {outcome.events_per_s:,.0f} events/s, {outcome.cpu_us:.1f} µs an event{wrong}"


def _report(outcomes: Sequence[Outcome], left_out: dict[str, str], count: int) -> int:
    if not outcomes:
        return 1
    where = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {count:,} events"
    lines = [*table(outcomes), "", where, *(f"{name}: left out, {why}" for name, why in left_out.items())]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "compare.md").write_text("\n".join(lines) + "\n")
    (OUT / "compare.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    chart.draw(outcomes, OUT / "compare.png")
    print("\n".join(lines))
    print(f"\n{(OUT / 'compare.png').relative_to(ROOT)} shows it")
    return 1 if any(outcome.wrong for outcome in outcomes if outcome.peer == WORKER.name) else 0


if __name__ == "__main__":
    raise SystemExit(main())
