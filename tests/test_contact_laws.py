"""Nobody is written to who must not be: random histories of merging people, judged by an oracle that shares no code."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings

from tests.contact_oracle import Oracle
from tests.contact_world import DAY_MS, KNOWN, Read, World, histories


def judge(history: list[Read], partitions: int) -> tuple[Counter[str], list[tuple[str, str, str]]]:
    """Let a history happen and be judged; how often what came out, and the outcome of every decision."""
    oracle, seen, outcomes = Oracle(), Counter[str](), []
    for happened in World(partitions).live(history, history[-1].at_ms + 3 * DAY_MS):
        if isinstance(happened, Read):
            oracle.read(happened.event, KNOWN)
        else:
            oracle.decide(happened)
            seen.update([happened["action"], *happened["reasons"]])
            outcomes.append((happened["decision_id"], happened["user_id"], happened["action"]))
    return seen, outcomes


@pytest.mark.parametrize("partitions", [1, 3])
def test_no_history_makes_a_mistake_of_a_message(partitions: int) -> None:
    """No cap is exceeded in any window, nothing goes out in quiet hours, after an unsubscription, without an address,
    twice, before due or after expiry; a person's group never changes; nothing is decided for an id of somebody else.
    """

    @given(histories())
    @settings(max_examples=150, derandomize=True)
    def law(history: list[Read]) -> None:
        judge(history, partitions)

    law()
