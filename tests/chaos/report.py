"""The table and the picture of a run."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.chaos.faults import Fault
from tests.chaos.outside import ON_TIME_MS
from tests.chaos.verdict import Finding, Verdict

INCHES = (15.0, 6.5)
DPI = 90
HUES = 64
LEAST_MS, MOST_MS = 10.0, 1e6
SHOWN_BYTES = 1000  # of a record, in the evidence
COLORS = {"workers": "tab:blue", "Redis": "tab:red", "broker": "tab:purple", "network": "tab:orange"}
KINDS = ("lost", "doubled", "wrong")


@dataclass(frozen=True)
class Done:
    """A fault that was made, from when to when (seconds since the epoch); `alone`: no other before it was over."""

    fault: Fault
    began_s: float
    ended_s: float
    alone: bool


@dataclass
class Run:
    """All there is to tell."""

    seed: int
    began_s: float
    ended_s: float
    done: list[Done]
    verdict: Verdict
    left_out: dict[str, str]
    ended: list[tuple[float, str]] = field(default_factory=list)

    def recovery_s(self, number: int) -> float | None:
        """How long the recovery from a fault took; None if others came before it was over."""
        done = self.done[number]
        if not (done.alone and (number == 0 or self.done[number - 1].alone)):
            return None
        next_s = self.done[number + 1].began_s if number + 1 < len(self.done) else self.ended_s
        from_s = done.ended_s if done.fault.recovery == "from its end" else done.began_s
        touched = [one for one in self.verdict.decisions if from_s <= one.published_ms / 1e3 < next_s]
        late_s = [one.published_ms / 1e3 for one in touched if one.delay_ms > ON_TIME_MS]
        if late_s and done.fault.recovery != "longest wait":
            return max(late_s) - from_s
        return max((one.delay_ms / 1e3 for one in touched), default=None)

    def cause(self, finding: Finding) -> Done | None:
        """The last fault before something should have come out."""
        before = [done for done in self.done if finding.due_s is not None and done.began_s <= finding.due_s + 1]
        return before[-1] if before else None


def table(run: Run) -> str:
    """The result as a Markdown table."""
    lines = [
        "| done to | fault | times | lost | doubled | wrong | recovery p50 | max | promised |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    faults = list(dict.fromkeys(done.fault for done in run.done))
    for fault in sorted(faults, key=lambda fault: (list(COLORS).index(fault.part), fault.name)):
        numbers = [number for number, done in enumerate(run.done) if done.fault is fault]
        caused = [finding for finding in run.verdict.findings if (c := run.cause(finding)) and c.fault is fault]
        lines.append(_row(fault.part, fault.name, len(numbers), caused, _recoveries(run, numbers), fault.promised_s))
    everything = _recoveries(run, list(range(len(run.done))))
    lines.append(_row("**all**", "", len(run.done), run.verdict.findings, everything, None))
    return "\n".join(lines)


def _recoveries(run: Run, numbers: list[int]) -> list[float]:
    return [found for number in numbers if (found := run.recovery_s(number)) is not None]


def _row(
    part: str, name: str, times: int, caused: Sequence[Finding], recoveries_s: list[float], promised_s: float | None
) -> str:
    counts = [str(sum(finding.kind == kind for finding in caused)) for kind in KINDS]
    figures = [f"{median(recoveries_s):.2f} s", f"{max(recoveries_s):.2f} s"] if recoveries_s else ["-", "-"]
    promised = "" if promised_s is None else f"{promised_s:.0f} s"
    return f"| {' | '.join([part, name, str(times), *counts, *figures, promised])} |"


def words(run: Run) -> str:
    """What the run was, in a few lines."""
    seconds, verdict, topics = run.ended_s - run.began_s, run.verdict, run.verdict.topics
    delays = sorted(one.delay_ms for one in verdict.decisions)
    events, letters, p50, p99 = (
        len(topics.events),
        len(topics.letters),
        delays[len(delays) // 2],
        delays[len(delays) * 99 // 100],
    )
    size = f"{events:,} events ({events / seconds:.0f}/s), {len(verdict.stories):,} triggers"
    made = f"{len(topics.log):,} decisions, {len(delays):,} of them sent, {letters:,} dead letters"
    lines = [
        f"SEED={run.seed}: {seconds / 60:.1f} minutes, {size}, {made}",
        f"delay from fire_at to published: p50 {p50:.0f} ms, p99 {p99:.0f} ms, max {delays[-1] / 1e3:.1f} s",
    ]
    lines += [f"left out: {name}: {why}" for name, why in run.left_out.items()]
    by_fault: dict[str, int] = {}
    for at_s, _ in run.ended:
        before = [done for done in run.done if done.began_s <= at_s]
        name = f"{before[-1].fault.part} {before[-1].fault.name}" if before else "no fault"
        by_fault[name] = by_fault.get(name, 0) + 1
    lines += [f"workers that ended themselves, and were started again: {times} after {name}"
              for name, times in by_fault.items()]  # fmt: skip
    return "\n".join(lines)


def draw(run: Run, path: Path) -> None:
    """Write the delay of each decision over time as a PNG, with the faults marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    decisions = run.verdict.decisions
    fired_s = [one.fire_ms / 1e3 - run.began_s for one in decisions]
    delays_ms = [max(LEAST_MS, one.delay_ms) for one in decisions]
    axes.plot(fired_s, delays_ms, ".", color="black", markersize=1.5, alpha=0.4)
    axes.axhline(ON_TIME_MS, color="black", linestyle=":", linewidth=1)
    axes.set_yscale("log")
    axes.set_ylim(bottom=LEAST_MS, top=MOST_MS)
    axes.set_xlim(0, run.ended_s - run.began_s)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylabel("delay from fire_at to published, ms")
    axes.set_xlabel("seconds; dotted: the promised second")
    for done in run.done:
        begin_s, end_s = done.began_s - run.began_s, done.ended_s - run.began_s
        axes.axvspan(begin_s, max(end_s, begin_s + 0.5), color=COLORS[done.fault.part], alpha=0.25, linewidth=0)
        axes.text(begin_s, 0.9 * MOST_MS, done.fault.name, rotation=90, fontsize=6.5, va="top", ha="center",
                  color=COLORS[done.fault.part])  # fmt: skip
    for part, color in COLORS.items():
        axes.plot([], [], "s", color=color, alpha=0.5, label=part)
    axes.legend(loc="lower right", frameon=False, ncols=len(COLORS))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"500 events/s on a real Kafka and Redis, 1 to 3 workers, SEED={run.seed}")
    drawn = io.BytesIO()
    figure.savefig(drawn)
    Image.open(drawn).quantize(HUES).save(path, optimize=True)  # a third of the size


def evidence(run: Run, folder: Path) -> None:
    """Write what was done, and if anything is wrong what, and all topics, beside the servers' and workers' output."""
    lines = [
        f"SEED={run.seed}",
        *(f"{_clock(one.began_s)} to {_clock(one.ended_s)} {one.fault.part}: {one.fault.name}" for one in run.done),
    ]
    lines += [f"{_clock(at_s)} ended itself: {why}" for at_s, why in run.ended]
    lines += [f"{finding.kind}: {finding.text}" for finding in run.verdict.findings]
    (folder / "evidence.txt").write_text("\n".join(lines) + "\n")
    if run.verdict.findings:
        with (folder / "topics.txt").open("w") as file:
            for name, records in vars(run.verdict.topics).items():
                for record in records:
                    place = f"{name} {record.partition} {record.offset} {_clock(record.timestamp / 1e3)}"
                    file.write(f"{place} {record.key!r} {(record.value or b'')[:SHOWN_BYTES]!r}\n")


def _clock(at_s: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(at_s)) + f".{int(at_s % 1 * 1000):03d}"
