"""The command `evaluate`: what other policies would have earned, as a table, as JSON and as a picture."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import orjson
from rich.table import Table

from bandits.evaluate import Estimate, Method, difference, estimate
from bandits.gate import promotion
from bandits.logged import Logged
from decisioning.evaluation import Candidate, Choices, LogError, Row, arm_names, chosen, logged, probabilities
from streams.evaluation_chart import Line, draw
from streams.evaluation_log import read
from streams.failure import NO, WRONG_USE, Failure
from streams.flags import say
from streams.plain import plain_console

SHOWN_ARMS: Final = 12
SHOWN: Final = 400  # characters of a list in an error
METHODS: Final = ("ips", "snips", "dr")


@dataclass(frozen=True, slots=True)
class Asked:
    """What to evaluate, and how."""

    log: Path
    policies: Sequence[str]
    examples: Path | None = None
    campaign: str | None = None
    choice: str | None = None
    method: str = "dr"
    alpha: float = 0.05
    margin: float = 0.0
    as_json: bool = False
    png: Path | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """One policy on one choice of the log."""

    name: str
    estimates: dict[tuple[str, str], Estimate]  # (method, interval)
    gain: Estimate | None
    gate: str
    allowed: bool
    refusal: str


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One choice of the log: what was logged, and every policy."""

    choice: str
    rows: int
    arms: dict[str, tuple[int, float]]
    logged: Estimate
    fixed: Estimate
    policies: list[Judged]


def evaluate(asked: Asked) -> int:
    """Print what the policies would have earned.

    Returns
    -------
    int
        Exit code: 1 where the log cannot answer for one of them.

    Raises
    ------
    Failure
        A file cannot be used, a policy is none, or the log has no such choice.
    """
    _check(asked)
    try:
        candidates = [Candidate.of(text) for text in asked.policies]
    except ValueError as error:
        raise Failure(f"--policy {error}", WRONG_USE) from None
    choices = read(asked.log, asked.examples)
    selected = choices.select(asked.campaign, asked.choice)
    if not selected:
        raise _nothing(asked, choices)
    for candidate in candidates:
        if not any(candidate.concerns(arm_names(rows)) for rows in selected.values()):
            known = ", ".join(sorted({arm for rows in selected.values() for arm in arm_names(rows)}))
            raise Failure(f"--policy {candidate.name}: no such arm in {asked.log}; it has {known[:SHOWN]}", WRONG_USE)
    found = []
    for choice, rows in selected.items():
        try:
            found.append(_evaluated(choice, rows, candidates, asked))
        except LogError as error:
            raise Failure(f"{asked.log}: {choice}: {error}", WRONG_USE) from None
    if choices.orphans:
        say(f"{choices.orphans:,} records of decisions that are not in the log were left out")
    if asked.png is not None:
        draw([(one.choice, _shown(one, asked.method)) for one in found], asked.alpha, asked.png)
    if asked.as_json:
        sys.stdout.buffer.write(orjson.dumps(_document(found, asked), option=orjson.OPT_INDENT_2) + b"\n")
    else:
        _print(found, asked)
    answered = {judged.name for one in found for judged in one.policies if not judged.refusal}
    return 0 if answered.issuperset(asked.policies) else NO


def _check(asked: Asked) -> None:
    """Refuse flags that mean nothing."""
    if asked.method not in METHODS:
        raise Failure(f"--method {asked.method}: expected one of {', '.join(METHODS)}", WRONG_USE)
    if not 0.0 < asked.alpha < 1.0:
        raise Failure(f"--alpha {asked.alpha:g}: expected a number between 0 and 1, such as 0.05", WRONG_USE)
    if not math.isfinite(asked.margin):
        raise Failure(f"--margin {asked.margin:g}: expected a finite number, such as 0.01", WRONG_USE)


def _nothing(asked: Asked, choices: Choices) -> Failure:
    if not any(choices.rows.values()):
        return Failure(f"{asked.log}: no choice is logged in it; give a log of decisions that were sent", NO)
    known = ", ".join(sorted(choices.rows))
    if asked.campaign is None and asked.choice is None:
        return Failure(f"{asked.log}: every choice in it had one arm only ({known}); nothing to compare", NO)
    return Failure(f"{asked.log}: it has no such choice; choose by --campaign and --choice from {known}", WRONG_USE)


def _evaluated(choice: str, rows: list[Row], candidates: Sequence[Candidate], asked: Asked) -> Evaluated:
    log, arms = logged(rows)
    on_policy = log.propensity
    baseline = {
        interval: estimate(log, on_policy, "ips", interval=interval, alpha=asked.alpha)
        for interval in ("always_valid", "fixed")
    }
    judged = [_judged(each, rows, log, arms, asked) for each in candidates if each.concerns(arms)]
    return Evaluated(choice, len(rows), chosen(rows), baseline["always_valid"], baseline["fixed"], judged)


def _judged(candidate: Candidate, rows: list[Row], log: Logged, arms: list[str], asked: Asked) -> Judged:
    wanted = probabilities(candidate, rows, arms, log.context)
    method: Method = next(known for known in get_args(Method) if known == asked.method)
    try:
        found = {
            (each, interval): estimate(log, wanted, each, interval=interval, alpha=asked.alpha)
            for each in METHODS
            for interval in ("always_valid", "fixed")
        }
        gain = difference(log, wanted, None, method, alpha=asked.alpha)
        verdict = promotion(log, wanted, margin=asked.margin, method=method, alpha=asked.alpha)
    except ValueError as error:
        return Judged(candidate.name, {}, None, str(error), allowed=False, refusal=str(error))
    refusal = found[asked.method, "always_valid"].refusal
    return Judged(candidate.name, found, gain, verdict.why, verdict.allowed, refusal)


def _shown(one: Evaluated, method: str) -> list[Line]:
    """Name, always-valid and fixed estimate and gain of what can be drawn: the logged policy, then the others."""
    others = [
        (judged.name, judged.estimates[method, "always_valid"], judged.estimates[method, "fixed"], judged.gain)
        for judged in one.policies
        if judged.estimates
    ]
    return [("as logged", one.logged, one.fixed, None), *others]


def _document(found: Sequence[Evaluated], asked: Asked) -> dict[str, Any]:
    return {
        "log": str(asked.log),
        "method": asked.method,
        "alpha": asked.alpha,
        "choices": [
            {
                "choice": one.choice,
                "rows": one.rows,
                "arms": {arm: {"rows": rows, "reward": reward} for arm, (rows, reward) in one.arms.items()},
                "logged": _numbers(one.logged, one.fixed),
                "policies": [_policy(judged, asked.method) for judged in one.policies],
            }
            for one in found
        ],
    }


def _policy(judged: Judged, method: str) -> dict[str, Any]:
    said: dict[str, Any] = {"policy": judged.name, "answered": not judged.refusal, "refusal": judged.refusal}
    if judged.estimates:
        chief = judged.estimates[method, "always_valid"]
        said |= _numbers(chief, judged.estimates[method, "fixed"])
        said |= {
            "effective_sample_size": chief.effective_sample_size,
            "overlap": chief.overlap,
            "mean_weight": chief.mean_weight,
            "largest_share": chief.largest_share,
            "estimates": {
                each: _numbers(judged.estimates[each, "always_valid"], judged.estimates[each, "fixed"])
                for each in METHODS
            },
        }
    if judged.gain is not None:
        gain = dataclasses.asdict(judged.gain)
        said["difference"] = {name: gain[name] for name in ("value", "low", "high")}
    return said | {"promote": judged.allowed, "why": judged.gate}


def _numbers(always: Estimate, fixed: Estimate) -> dict[str, Any]:
    return {
        "value": always.value,
        "low": always.low,
        "high": always.high,
        "fixed": {"low": fixed.low, "high": fixed.high},
    }


def _print(found: Sequence[Evaluated], asked: Asked) -> None:
    console = plain_console()
    for place, one in enumerate(found):
        if place:
            console.print()
        console.print(_table(one, asked))
        console.print(f"Arms as logged: {_arms(one)}.", soft_wrap=True)
        for judged in one.policies:
            said = f"cannot say: {judged.refusal}" if judged.refusal else judged.gate
            console.print(f"{judged.name}: {said}.", soft_wrap=True)


def _table(one: Evaluated, asked: Asked) -> Table:
    share = f"{1.0 - asked.alpha:.0%}"
    table = Table(title=f"{one.choice}: {one.rows:,} decisions", title_justify="left", title_style="bold")
    for name in ("policy", "method"):
        table.add_column(name, no_wrap=name == "method")
    for name in ("value", f"{share}, always valid", f"{share}, one look", "worth rows", "overlap", "gain"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("as logged", "mean", *_cells(one.logged, one.fixed), f"{one.rows:,}", "100%", "")
    for judged in one.policies:
        for each in METHODS if judged.estimates else ():
            always, fixed = judged.estimates[each, "always_valid"], judged.estimates[each, "fixed"]
            more = (f"{always.effective_sample_size:,.0f}", f"{always.overlap:.0%}") if each == METHODS[0] else ("", "")
            gain = f"{judged.gain.low:+.4g} … {judged.gain.high:+.4g}" if each == asked.method and judged.gain else ""
            name = judged.name if each == METHODS[0] else ""
            table.add_row(name, each, *_cells(always, fixed), *more, gain)
        if not judged.estimates:
            table.add_row(judged.name, "", "none", "", "", "0", "0%", "")
    return table


def _cells(always: Estimate, fixed: Estimate) -> tuple[str, str, str]:
    return (
        f"{always.value:.5g}",
        f"{always.low:.4g} … {always.high:.4g}",
        f"{fixed.low:.4g} … {fixed.high:.4g}",
    )


def _arms(one: Evaluated) -> str:
    said = [f"{arm} {rows:,} times, {reward:.4g} each" for arm, (rows, reward) in list(one.arms.items())[:SHOWN_ARMS]]
    more = len(one.arms) - len(said)
    return "; ".join(said) + (f"; and {more} more" if more > 0 else "")
