"""Regret of our policies and of other people's bandits on the same streams with the same luck; cost of a decision.

    python -m benchmarks.regret [--seeds 20] [--quick] [--only NAME]

A regret is what the best arm was worth less what the chosen one was, summed over a stream of known optimum
(`benchmarks/worlds.py`). Outcomes reach everybody at the same moments. The peers run in the benchmarks' own
environment. Results go to `out/bench/regret.md`, `regret.json` and `regret.png`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import process_time
from typing import Final

import numpy as np

from bandits import build_policy
from benchmarks.peers.bandits import PEERS
from benchmarks.peers.catalog import OWN_PYTHON, LeftOutError, environment, install
from benchmarks.players import OURS
from benchmarks.regret_chart import draw
from benchmarks.worlds import STREAMS, Floats, curve, optimum, play
from tests.services import ROOT

OUT: Final = ROOT / "out" / "bench"
MAIN: Final = "ours: thompson"  # what is compared with the best of the peers
ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
COST_ARMS, COST_FEATURES, COST_BATCH = 24, 32, 512

Curves = dict[str, dict[str, Floats]]  # stream -> player -> float64[seeds, points]


def interval(values: Floats) -> tuple[float, float]:
    """Mean and half width of its 95 % interval, Student's t over the seeds."""
    from scipy.stats import t  # noqa: PLC0415 - River brings it; only here

    count = len(values)
    if count == 1:
        return float(values[0]), math.inf
    return float(values.mean()), float(t.ppf(0.975, count - 1) * values.std(ddof=1) / math.sqrt(count))


def verdict(ours: Floats, best: Floats) -> str:
    """How ours compares with the best peer: intervals that overlap decide nothing."""
    (mine, my_half), (theirs, their_half) = interval(ours), interval(best)
    if mine + my_half < theirs - their_half:
        return "better"
    return "worse" if mine - my_half > theirs + their_half else "not worse"


def run_ours(seeds: int, say: Callable[[str], None]) -> Curves:
    """Play all streams with our policies."""
    found: Curves = {stream: {} for stream in STREAMS}
    for name, make in OURS.items():
        say(name)
        for title, world in STREAMS.items():
            streams = [world(seed) for seed in range(seeds)]
            found[title][name] = np.array(
                [curve(play(stream, make(stream, seed))) for seed, stream in enumerate(streams)]
            )
    return found


def run_peer(name: str, seeds: int) -> tuple[dict[str, Floats], dict[str, str]]:
    """Curves by stream of a peer, and the streams that it cannot play with the reason.

    Raises
    ------
    LeftOutError
        It cannot run here at all.
    """
    command = [str(OWN_PYTHON), "-W", "ignore", "-m", "benchmarks.peers.bandits", name, str(seeds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(ONE_THREAD), cwd=ROOT)
    if done.returncode:
        raise LeftOutError((done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1])
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    curves = {line["stream"]: np.array(line["curves"]) for line in lines if "curves" in line}
    return curves, {line["stream"]: line["left out"] for line in lines if "left out" in line}


def table(found: Mapping[str, Mapping[str, Floats]], names: Sequence[str], seeds: int) -> list[str]:
    """Regret at the end of each stream as Markdown: mean and 95 % interval, the best peer in bold."""
    lines = ["| | " + " | ".join(found) + " |", "|---" + "|--:" * len(found) + "|"]
    best = {title: best_peer(players) for title, players in found.items()}
    for row in names:
        cells = []
        for title, players in found.items():
            if row not in players:
                cells.append("")
                continue
            mean, half = interval(players[row][:, -1])
            cell = f"{mean:.1f} ± {half:.1f}"
            cells.append(f"**{cell}**" if row in {best[title], MAIN} else cell)
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    judged = [
        verdict(players[MAIN][:, -1], players[name][:, -1]) if (name := best[title]) else ""
        for title, players in found.items()
    ]
    lines.append(f"| {MAIN} against the best peer | " + " | ".join(judged) + " |")
    worth = [f"{np.mean([optimum(STREAMS[title](seed)) for seed in range(min(seeds, 5))]):,.0f}" for title in found]
    return [*lines, "| the best choices are worth | " + " | ".join(worth) + " |"]


def best_peer(players: Mapping[str, Floats]) -> str | None:
    """Name of the peer with the least mean regret."""
    peers = [name for name in players if name in PEERS]
    return min(peers, key=lambda name: float(players[name][:, -1].mean()), default=None)


def cost_us(passes: int = 5) -> dict[str, float]:
    """CPU µs of a decision among 24 arms with 32 features each, over a batch, by algorithm."""
    rng = np.random.default_rng(1)
    spent = {}
    for algorithm in ("thompson", "squarecb", "epsilon_greedy", "softmax", "uniform"):
        policy = build_policy({"algorithm": algorithm}, COST_FEATURES)
        rows = rng.standard_normal((2000, COST_FEATURES))
        policy.learn(rows, rows @ rng.normal(0, 0.1, COST_FEATURES) + rng.standard_normal(2000))
        batch = rng.standard_normal((COST_BATCH, COST_ARMS, COST_FEATURES))
        policy.probabilities_of(batch)
        times = []
        for _ in range(passes):
            start = process_time()
            policy.probabilities_of(batch)
            times.append(process_time() - start)
        spent[algorithm] = float(np.median(times)) / COST_BATCH * 1e6
    return spent


def main() -> int:
    """Run all; 0 if ours is nowhere worse than the best peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", action="append", help="part of a peer's name; may be given again")
    parser.add_argument("--quick", action="store_true", help="three seeds")
    given = parser.parse_args()
    seeds = 3 if given.quick else given.seeds
    found = run_ours(seeds, lambda name: print(name, flush=True))
    notes: list[str] = []
    for name in PEERS:
        if given.only and not any(word in name for word in given.only):
            continue
        print(name, flush=True)
        try:
            install()
            curves, refused = run_peer(name, seeds)
        except LeftOutError as error:
            notes.append(f"{name}: left out, {error}")
            continue
        for title, values in curves.items():
            found[title][name] = values
        notes += [f"{name}: {reason} ({title})" for title, reason in refused.items()]
    return report(found, notes, seeds)


def report(found: Curves, notes: Sequence[str], seeds: int) -> int:
    """Print and write what was found."""
    names = [name for name in (*OURS, *PEERS) if any(name in players for players in found.values())]
    costs = ", ".join(f"{name} {spent:.1f}" for name, spent in cost_us().items())
    where = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}"
    lines = [
        *table(found, names, seeds), "", f"{seeds} seeds; {where}", *notes, "",
        f"µs CPU of a decision, {COST_ARMS} arms with {COST_FEATURES} features, in batches of {COST_BATCH}: {costs}",
    ]  # fmt: skip
    OUT.mkdir(parents=True, exist_ok=True)
    write(OUT, lines, found)
    print("\n".join(lines))
    judged = [
        verdict(players[MAIN][:, -1], players[name][:, -1])
        for players in found.values()
        if (name := best_peer(players)) is not None
    ]
    return 1 if "worse" in judged else 0


def write(folder: Path, lines: Sequence[str], found: Curves) -> None:
    """The table, all final regrets, and the picture."""
    (folder / "regret.md").write_text("\n".join(lines) + "\n")
    final = {title: {name: c[:, -1].tolist() for name, c in players.items()} for title, players in found.items()}
    (folder / "regret.json").write_text(json.dumps(final, indent=1) + "\n")
    draw(found, folder / "regret.png")


if __name__ == "__main__":
    os.environ.update(ONE_THREAD)
    raise SystemExit(main())
