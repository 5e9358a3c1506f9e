"""The people of the demo who are written to: which subject they answer to, which the worker has to find out."""

from __future__ import annotations

import heapq
import time
from collections import deque
from typing import Any, Final

import orjson

from bandits.policy import uniform_number
from decisioning.localtime import iso
from decisioning.simulate import Simulated

CAMPAIGN: Final = "cart-abandonment"
SLOT: Final = "subject"
CHANCES: Final = {"plain": 0.05, "named": 0.10, "question": 0.08, "gift": 0.30}
"""Subject -> the share of those who read it that click: the truth, which nobody tells the worker."""
BEST: Final = max(CHANCES, key=CHANCES.__getitem__)
EVEN: Final = sum(CHANCES.values()) / len(CHANCES)
MOST_LIFT: Final = CHANCES[BEST] / EVEN - 1
CLICKS: Final = {"email": "Email Link Clicked", "push": "Push Tapped"}
SOONEST_S: Final = 0.1
LATEST_S: Final = 0.6
WINDOW: Final = 100  # messages that shares are of


class Audience:
    """Answers messages after a moment, by a hash of the decision's id: the same decision is always answered alike."""

    def __init__(self) -> None:
        self._coming: list[tuple[float, Simulated]] = []
        self.answered = 0

    def read(self, decision: dict[str, Any]) -> None:
        """Take in a record of `decisions`; whoever likes the subject will click."""
        if decision["campaign"] != CAMPAIGN:
            return
        identity = decision["decision_id"]
        if uniform_number(f"{identity}/audience".encode()) >= CHANCES.get(decision["variants"].get(SLOT, ""), 0.0):
            return
        wait_s = SOONEST_S + (LATEST_S - SOONEST_S) * uniform_number(f"{identity}/patience".encode())
        due_s = time.time() + wait_s
        at = iso(int(1000 * due_s))
        event = {
            "type": "track",
            "messageId": f"answer-{identity}",
            "userId": decision["user_id"],
            "event": CLICKS[decision["channel"]],
            "properties": {"decision_id": identity},
            "timestamp": at,
            "receivedAt": at,
        }
        answer = Simulated(int(1000 * due_s), decision["user_id"].encode(), orjson.dumps(event))
        heapq.heappush(self._coming, (due_s, answer))

    def due(self) -> list[Simulated]:
        """The clicks that have come by now."""
        now_s, come = time.time(), []
        while self._coming and self._coming[0][0] <= now_s:
            come.append(heapq.heappop(self._coming)[1])
        self.answered += len(come)
        return come


class Mix:
    """Which subjects were sent: in all, in the first messages and in the latest ones."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self._latest: deque[str] = deque(maxlen=WINDOW)

    def sent(self, subject: str) -> None:
        """Count a message."""
        if len(self.first) < WINDOW:
            self.first.append(subject)
        self._latest.append(subject)

    @property
    def latest(self) -> list[str]:
        """Subjects of the latest messages."""
        return list(self._latest)


def share(subjects: list[str]) -> float | None:
    """How many of these messages had the best subject; None of none."""
    return subjects.count(BEST) / len(subjects) if subjects else None


def lift(subjects: list[str]) -> float | None:
    """How many more click than with every subject sent equally often: 0.5 is half as many again; None of none."""
    if not subjects:
        return None
    return sum(CHANCES.get(subject, 0.0) for subject in subjects) / len(subjects) / EVEN - 1
