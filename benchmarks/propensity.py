"""What propensity models cost an example and a score, and how well they predict: `python -m benchmarks.propensity`.

The baselines run in the same process on the same stream: River's own logistic regression and forest, example by
example, and the smoothed rate of each person. The stream is `tests/letters.py`, 25,000 letters to 500 people.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from river import forest, linear_model, optim, preprocessing

from bandits.propensity import PropensityModel, prepare
from bandits.propensity_score import MEMBERS, RATE, Scorer
from tests.letters import WIDTH, newsletter

SEEDS = range(1, 6)
RIVER_ROWS = 2_000


def per_row_us(work: Callable[[], object], rows: int) -> float:
    """Microseconds a row that some work takes."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) / rows * 1e6


def costs() -> dict[str, float]:
    """Microseconds an example or a score."""
    x, y = newsletter(1)
    named = [dict(enumerate(row)) for row in x[:RIVER_ROWS].tolist()]
    labels = y[:RIVER_ROWS].tolist()
    scaled: Any = preprocessing.StandardScaler
    linear: Any = scaled() | linear_model.LogisticRegression(optimizer=optim.AdaGrad(0.1))
    trees: Any = forest.ARFClassifier(n_models=5, max_depth=8, grace_period=100, leaf_prediction="mc", seed=1)

    def learn(model: Any) -> Callable[[], object]:
        def run() -> None:
            for row, outcome in zip(named, labels, strict=True):
                model.learn_one(row, outcome)

        return run

    whole, bare = PropensityModel(WIDTH), PropensityModel(WIDTH)
    bare.forest.allowance = -float(len(x))  # it never gets to learn
    found = {
        "River, logistic regression, learn_one": per_row_us(learn(linear), RIVER_ROWS),
        "River, adaptive forest of 5 trees, learn_one": per_row_us(learn(trees), RIVER_ROWS),
        "ours without the forest": per_row_us(lambda: bare.learn(x, y), len(x)),
        "ours": per_row_us(lambda: whole.learn(x, y), len(x)),
    }
    scorer = Scorer(whole.members)
    rows = x[:5_000].tolist()
    found["ours, a score"] = per_row_us(lambda: [scorer.score(row) for row in rows], len(rows))
    return found


def quality() -> list[tuple[str, float, float, float]]:
    """Member, log-loss, AUC and calibration error, means over the seeds, each letter predicted before it is learned."""
    models = []
    for seed in SEEDS:
        model = PropensityModel(WIDTH)
        model.learn(*newsletter(seed))
        models.append(model.progress)
    return [
        (
            name,
            float(np.mean([p.log_loss(member) for p in models])),
            float(np.mean([p.auc(member) for p in models])),
            float(np.mean([p.calibration_error(member) for p in models])),
        )
        for member, name in enumerate(MEMBERS)
    ]


def main() -> None:
    """Print both tables."""
    prepare()
    table = costs()
    base = table["River, logistic regression, learn_one"]
    print(f"{'microseconds an example':48}{'us':>8}{'ratio':>8}")
    for name, us in table.items():
        print(f"{name:48}{us:8.1f}{us / base:8.2f}")
    print(f"\n{'member':12}{'log-loss':>10}{'AUC':>8}{'calibration':>13}")
    for name, loss, auc, error in quality():
        print(f"{name:12}{loss:10.4f}{auc:8.4f}{error:13.4f}{'  (baseline)' if name == MEMBERS[RATE] else ''}")


if __name__ == "__main__":
    main()
