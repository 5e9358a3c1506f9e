"""Decisions as training examples: what goes to `examples` with a decision, with its outcomes, and when it is forgotten.

The reward of an arm is the sum over its record and its corrections, so that their order and delay do not matter.
"""

from __future__ import annotations

from typing import Any

import orjson

from decisioning.effects import Outgoing
from decisioning.localtime import iso
from decisioning.profile import Send


def examples(send: Send, pseudonym: str | None) -> list[Outgoing]:
    """One example for each choice of a decision, at its moment.

    A held-out decision gives an example of its `holdout` choice alone. `pseudonym` stands for the person; without a
    key there is none. Rewards are still to come; what a message costs is known, and part of its channel's reward.
    """
    return _records(send, send.at_ms, pseudonym, {"channel": -send.cost} if send.cost else {})


def corrections(send: Send, at_ms: int, pseudonym: str | None, delta: float) -> list[Outgoing]:
    """One correction for each example of a decision; `sent_at` is the time of the example itself."""
    return _records(send, at_ms, pseudonym, dict.fromkeys(send.choices, delta), {"sent_at": iso(send.at_ms)})


def forgotten(send: Send, at_ms: int, pseudonym: str | None) -> list[Outgoing]:
    """For each example of a decision what makes it as if it had never been: the person was erased.

    `delta` takes back the sum of all its rewards; `forget` says that the example itself goes, too.
    """
    cost, reward = send.cost or 0.0, send.reward or 0.0
    deltas = {choice: (cost if choice == "channel" else 0.0) - reward for choice in send.choices}
    return _records(send, at_ms, pseudonym, deltas, {"sent_at": iso(send.at_ms), "forget": True})


def _records(
    send: Send, at_ms: int, pseudonym: str | None, rewards: dict[str, float], correcting: dict[str, Any] | None = None
) -> list[Outgoing]:
    at = iso(at_ms)
    context = orjson.Fragment(orjson.dumps(send.context))  # the same for all choices, and most of their bytes
    found = []
    for choice, (arm, propensity) in send.choices.items():
        policy, reward = f"{send.campaign}/{choice}", rewards.get(choice, 0.0)
        record = {
            "schema": 1,
            "decision_id": send.decision_id,
            "policy": policy,
            "arm": arm,
            "propensity": propensity,
            "context": send.context | send.slot if choice == "send_time" and send.slot else context,
            "reward": reward,
            "correction": correcting is not None,
            "at": at,
        }
        if correcting is not None:
            record["delta"] = reward
        if pseudonym is not None:
            record["pseudonym"] = pseudonym
        if correcting is not None:
            record.update(correcting)
        found.append(Outgoing(policy.encode(), orjson.dumps(record)))
    return found
