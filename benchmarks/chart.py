"""A picture of the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from statistics import median

from benchmarks.race import Outcome


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write events/s and CPU per event by peer as a PNG, ours in another colour, every pass as a dot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - slow to import
    from matplotlib.figure import Figure  # noqa: PLC0415 - likewise

    by_peer: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_peer.setdefault(outcome.peer, []).append(outcome)
    names = sorted(by_peer, key=lambda name: median(one.events_per_s for one in by_peer[name]))
    figure = Figure(figsize=(10, 1.5 + 0.42 * len(names)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    rates, costs = figure.subplots(1, 2, sharey=True)
    colours = ["tab:orange" if name.startswith("this worker") else "tab:gray" for name in names]
    for axes, title, of in (
        (rates, "events/s", attrgetter("events_per_s")),
        (costs, "µs CPU per event (logarithmic)", attrgetter("cpu_us")),
    ):
        values = [median(map(of, by_peer[name])) for name in names]
        axes.barh(names, values, color=colours, height=0.7)
        for place, name in enumerate(names):
            axes.plot([of(one) for one in by_peer[name]], [place] * len(by_peer[name]), "k.", markersize=4)
            axes.annotate(
                f"{values[place]:,.0f}" if values[place] >= 100 else f"{values[place]:.1f}",
                (max(map(of, by_peer[name])), place), xytext=(5, 0), textcoords="offset points", va="center",
                fontsize=8,
            )  # fmt: skip
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.18)
    costs.set_xscale("log")
    costs.set_xlim(left=1)
    rates.locator_params(axis="x", nbins=4)
    rates.xaxis.set_major_formatter("{x:,.0f}")
    figure.suptitle("The same job on one broker: decode, counts, a decision for 18 % of the events", fontsize=11)
    figure.savefig(path)
