"""Runs many seeds of the simulation on all cores: `python -m tests.simulate_many 100000 [first seed]`."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
import time

from tests.simulated_verdict import simulate

EVERY_S = 5.0


def judged(seed: int) -> tuple[int, list[str]]:
    """A seed and what is wrong with it; nothing a seed does ends the others."""
    try:
        return seed, simulate(seed)[0]
    except Exception as error:  # noqa: BLE001 - a finding like any other
        return seed, [f"{type(error).__name__}: {error}"]


def main(seeds: int, first: int) -> int:
    """Run them; returns the exit code."""
    failing: list[int] = []
    started_s = said_s = time.monotonic()
    with multiprocessing.Pool(os.cpu_count()) as pool:
        results = pool.imap_unordered(judged, range(first, first + seeds), chunksize=20)
        for done, (seed, troubles) in zip(itertools.count(1), results, strict=False):
            if troubles:
                failing.append(seed)
                _say(f"seed {seed}: {'; '.join(troubles)}\n")
            now_s = time.monotonic()
            if now_s - said_s > EVERY_S or done == seeds:
                said_s = now_s
                _say(f"{done:,} of {seeds:,} seeds, {done / (now_s - started_s):.0f}/s, {len(failing)} failing\n")
    if failing:
        _say(
            f"failing: {' '.join(map(str, sorted(failing)))}\nrepeat one: make simulate SEEDS=1 START={min(failing)}\n"
        )
    return 1 if failing else 0


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
