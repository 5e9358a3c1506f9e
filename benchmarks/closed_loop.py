"""People who react to what they are sent: events, decisions, outcomes and learning in one loop, all in memory.

    python -m benchmarks.closed_loop [--people 3000] [--algorithm thompson]

The engine decides on a virtual clock as in `backtest`. Each message sent is clicked with a probability that depends on
its subject; the click comes minutes later as an event with the decision's id, and is learned from before the next
decision. Which subject is best is known, so one sees its share of the sends rise.
"""

from __future__ import annotations

import argparse
import datetime as dt
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from decisioning.backtest import run
from decisioning.config import load
from decisioning.learning import Learning
from decisioning.plan import plans_of

SUBJECTS: Final = ("plain", "offer", "hurry", "question")
CLICKS: Final = (0.06, 0.16, 0.08, 0.04)  # of each subject
START_MS: Final = 1_772_000_000_000
GAP_MS: Final = 60_000  # between two carts
MEAN_WAIT_MS: Final = 20 * 60_000  # until a click
PARTS: Final = 10

CONFIGURATION: Final = """\
version: 1
timezone: UTC
channels: {{email: {{address: email}}}}
campaigns:
  - id: cart
    trigger: {{event: Product Added, delay: 0s, per: properties.cart_id}}
    channels: [email]
    variants:
      subject:
{subjects}
    goal: {{event: Email Link Clicked, within: 24h}}
    policy: {{algorithm: {algorithm}, explore: 0.05}}
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a loop.

    Attributes
    ----------
    best_share
        Share of the best subject among the sends, in each tenth of them.
    sends, clicks
        How many there were.
    possible
        Clicks to be expected had all sends had the best subject; `even`: had each had the same number.
    """

    best_share: list[float]
    sends: int
    clicks: int
    possible: float
    even: float


class Crowd:
    """People who put something into a cart, one a minute, and click on what they like."""

    def __init__(self, people: int, seed: int) -> None:
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._ahead: list[tuple[int, int, bytes]] = []
        self._count = 0
        self.chosen: list[str] = []
        self.clicks = 0
        for number in range(people):
            at_ms, person = START_MS + number * GAP_MS, f"u-{number}"
            self._say(at_ms, {"type": "identify", "userId": person, "traits": {"email": f"{person}@example.com"}})
            cart = {"type": "track", "userId": person, "event": "Product Added"}
            self._say(at_ms + 1, cart | {"properties": {"cart_id": f"c-{number}"}})

    def lines(self) -> Iterator[bytes]:
        """Events in the order of time; what people do in answer to a decision comes in its place."""
        while self._ahead:
            yield heapq.heappop(self._ahead)[2]

    def react(self, decision: dict[str, Any], now_ms: int) -> None:
        """Look at a message, and click or not."""
        subject = decision["variants"]["subject"]
        self.chosen.append(subject)
        if self._rng.random() < CLICKS[SUBJECTS.index(subject)]:
            self.clicks += 1
            click = {"type": "track", "userId": decision["user_id"], "event": "Email Link Clicked"}
            at_ms = now_ms + 1 + int(self._rng.exponential(MEAN_WAIT_MS))
            self._say(at_ms, click | {"properties": {"decision_id": decision["decision_id"]}})

    def _say(self, at_ms: int, call: dict[str, Any]) -> None:
        self._count += 1
        at = dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).isoformat(timespec="milliseconds")
        event = {"messageId": f"m-{self._count}", **call, "timestamp": at, "receivedAt": at}
        heapq.heappush(self._ahead, (at_ms, self._count, orjson.dumps(event)))


def play(people: int, seed: int, algorithm: str = "thompson") -> Result:
    """Run the loop to its end.

    Parameters
    ----------
    people
        Each is decided on once.
    seed
        Same arguments, same result.
    algorithm
        Of the campaign's policy.
    """
    subjects = "\n".join(f'        - {{id: {subject}, text: "{subject}"}}' for subject in SUBJECTS)
    config = load(CONFIGURATION.format(subjects=subjects, algorithm=algorithm))
    crowd = Crowd(people, seed)
    for effects in run(config, crowd.lines(), learning=Learning(plans_of(config))):
        for record in effects.decisions:
            decision = orjson.loads(record.value)
            crowd.react(decision, int(dt.datetime.fromisoformat(decision["decided_at"]).timestamp() * 1000))
    is_best = np.array(crowd.chosen) == SUBJECTS[int(np.argmax(CLICKS))]
    sends = len(is_best)
    return Result(
        best_share=[float(part.mean()) for part in np.array_split(is_best, PARTS)],
        sends=sends, clicks=crowd.clicks, possible=sends * max(CLICKS), even=sends * sum(CLICKS) / len(CLICKS),
    )  # fmt: skip


def main() -> None:
    """Print the share of the best subject as it rises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--algorithm", default="thompson")
    given = parser.parse_args()
    found = play(given.people, given.seed, given.algorithm)
    for part, share in enumerate(found.best_share):
        print(f"{(part + 1) * 100 // PARTS:>4} % of the sends: best subject {share:6.1%} {'#' * round(share * 40)}")
    print(
        f"{found.sends} sends, {found.clicks} clicks; {found.even:.0f} to be expected of chance, "
        f"{found.possible:.0f} of always the best"
    )


if __name__ == "__main__":
    main()
