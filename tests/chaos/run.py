"""Faults on real processes for so many minutes, then the verdict: `python -m tests.chaos.run 10 [SEED]`."""

from __future__ import annotations

import logging
import random
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.chaos import poison
from tests.chaos.faults import NEEDS_COMPANY, Fault, possible, sequence
from tests.chaos.report import KINDS, Done, Run, draw, evidence, table, words
from tests.chaos.stage import Stage
from tests.chaos.verdict import judge
from tests.services import ROOT, UnavailableError, wait_until

OUT = ROOT / "out" / "chaos"
WORKERS = 2
RECOVERY_S = 90.0
CALM_S = 1.0
OVERLAPPING = 0.2  # of the faults, another comes before it is over


def play(stage: Stage, faults: Iterable[Fault], seconds: float, seed: int, overlapping: float) -> list[Done]:
    """Make one fault after the other, for as long as time or faults last."""
    done: list[Done] = []
    until_s = time.monotonic() + seconds
    for number, fault in enumerate(faults):
        dice = random.Random(f"fault {number} of {seed}")  # its own: what an earlier one drew is no matter
        if time.monotonic() > until_s:
            break
        if fault.apply in NEEDS_COMPANY and len(stage.fleet.workers) == 1:
            stage.fleet.scale(WORKERS)
            stage.fleet.wait()
        print(f"{time.time() - stage.began_s:6.1f} s  {fault.part}: {fault.name}", flush=True)
        began_s = time.time()
        try:
            fault.apply(stage, dice)
        except TimeoutError as error:
            print(f"          not carried out: {error}")
            continue
        except UnavailableError as error:
            raise RuntimeError(f"{fault.part}: {fault.name}: {error}") from error
        ended_s = time.time()
        alone = dice.random() >= overlapping
        if alone:
            alone = recovered(stage, ended_s)
            time.sleep(CALM_S)
        done.append(Done(fault, began_s, ended_s, alone))
    return done


def recovered(stage: Stage, since_s: float) -> bool:
    """Wait until all is well again."""
    try:
        wait_until(lambda: stage.watcher.recovered(since_s) and stage.fleet.ready(), "decisions on time", RECOVERY_S)
    except TimeoutError as error:
        print(f"          {error}")
        return False
    return True


def run(seed: int, seconds: float, folder: Path, chosen: Sequence[Fault] = (), overlapping: float = OVERLAPPING) -> Run:
    """Make a run of its own broker, Redis and workers.

    Parameters
    ----------
    chosen
        Faults to make once, in this order; none: all of them again and again until time is up.
    overlapping
        The share of faults that are not waited for.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it complains of every fault
    with Stage(seed, folder) as stage:
        faults = possible(stage)
        listed = [fault for fault in chosen if fault in faults]
        stage.begin(WORKERS)
        done = play(stage, listed or sequence(faults, seed), seconds, seed, overlapping)
        if done and not done[-1].alone:
            recovered(stage, done[-1].ended_s)
        ended_s = time.time()
        stage.end()
        result = Run(seed, stage.began_s, ended_s, done, judge(stage), stage.left_out, stage.fleet.ended)
    evidence(result, folder)
    return result


def main(minutes: float, seed: int) -> int:
    """Run, report; 0 if nothing was lost, doubled or wrong."""
    print(f"SEED={seed}", flush=True)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    try:
        result = run(seed, minutes * 60, OUT)
    except UnavailableError as error:
        print(f"no Kafka or Redis to run on: {error}; make services installs what is missing", file=sys.stderr)
        return 2
    text = f"{words(result)}\n\n{table(result)}\n"
    draw(result, OUT / "delay.png")
    print(f"\n{text}\n{OUT}: table.md, delay.png, evidence.txt, the output of workers and servers", flush=True)
    for finding in result.verdict.findings[:20]:
        print(f"{finding.kind}: {finding.text}")
    cost = poison.measure(OUT)
    print(f"\n{cost}")
    (OUT / "table.md").write_text(f"{text}\n{cost}\n")
    return int(any(result.verdict.count(kind) for kind in KINDS))


if __name__ == "__main__":
    raise SystemExit(
        main(float(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else random.SystemRandom().randrange(10**6))
    )
