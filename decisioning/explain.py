"""Why a decision fell as it did: in words, and recomputed from its record alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bandits.policy import draw, uniform_number
from decisioning.choice import draw_key

MAX_CONTEXT = 8

_WORDS = {
    "no_address": "there is no address to send to",
    "no_consent": "the person did not agree to marketing there",
    "unsubscribed": "the person unsubscribed",
    "hard_bounced": "an earlier message bounced for good",
    "complained": "the person marked an earlier message as spam",
    "fatigue": "too many messages went unanswered lately",
    "holdout": "the person is in the holdout, which is never written to",
    "goal_reached": "the goal was reached before the message was due",
    "cancelled": "the reason for writing went away",
    "expired": "it would have come too late",
    "cooldown": "the campaign wrote to this person too lately",
    "not_eligible": "the campaign's own conditions do not hold",
    "out_of_stock": "the product is out of stock",
    "erased": "the person was erased",
    "no_channel": "no channel was left",
    "deferred:quiet_hours": "it waited for the end of quiet hours",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happened, in sentences.

    Attributes
    ----------
    sentences
        From the headline to the details.
    differences
        Choices that come out otherwise when they are made again; none for an intact record.
    """

    sentences: tuple[str, ...]
    differences: tuple[str, ...]

    def __str__(self) -> str:
        """One sentence a line."""
        return "\n".join(self.sentences)


def explain(record: Mapping[str, Any]) -> Explanation:
    """Explain one record of `decision-log`.

    Parameters
    ----------
    record
        As it was published; nothing else is needed.
    """
    if record.get("campaign") is None:
        return Explanation((f"The person was erased at {record['decided_at']}; this is the proof.",), ())
    sentences = [_headline(record), _timing(record), *_refusals(record), *_choices(record), *_context(record)]
    differences = tuple(_differences(record))
    sentences.append(
        "Recomputed from this record: "
        + ("every choice comes out the same." if not differences else "; ".join(differences))
    )
    provenance = record["as_of"]
    sentences.append(
        f"Made with configuration {record['config_version']}, "
        f"partition {provenance['partition']} read up to offset {provenance['offset']}."
    )
    return Explanation(tuple(sentences), differences)


def reason_in_words(code: str) -> str:
    """A reason code as half a sentence.

    Examples
    --------
    >>> reason_in_words("frequency_cap:daily"), reason_in_words("rule:no-minors")
    ("the frequency cap 'daily' has no room", "the rule 'no-minors' forbids it")
    """
    kind, _, name = code.partition(":")
    if kind == "frequency_cap":
        return f"the frequency cap '{name}' has no room"
    if kind == "rule":
        return f"the rule '{name}' forbids it"
    return _WORDS.get(code, code)


def _headline(record: Mapping[str, Any]) -> str:
    who = f"{record['campaign']} for {record['user_id']}"
    if record["action"] == "send":
        variants = ", ".join(f"{slot} '{arm}'" for slot, arm in record["variants"].items())
        return f"SENT: {who} by {record['channel']} with {variants}."
    why = "; ".join(reason_in_words(code) for code in record["reasons"])
    by = f" (event {record['cancelled_by']})" if record.get("cancelled_by") else ""
    return f"{'HELD OUT' if record['action'] == 'holdout' else 'NOT SENT'}: {who}: {why}{by}."


def _timing(record: Mapping[str, Any]) -> str:
    trigger = record["trigger"]
    waited = [reason_in_words(code) for code in record["reasons"] if code.startswith("deferred:")]
    text = (
        f"Triggered by '{trigger['event']}' at {trigger['at']}, due {record['due_at']}, decided {record['decided_at']}"
    )
    return text + (f"; {waited[0]}." if waited else ".")


def _refusals(record: Mapping[str, Any]) -> list[str]:
    return [
        f"Channel {channel} was refused: {'; '.join(reason_in_words(code) for code in codes)}."
        for channel, codes in record["channel_reasons"].items()
    ]


def _choices(record: Mapping[str, Any]) -> list[str]:
    sentences = []
    for choice, propensity in record["propensity"].items():
        arms = record["arms"][choice]
        chosen = _chosen(record, choice)
        if len(arms) == 1:
            sentences.append(f"{choice}: '{chosen}' was the only arm.")
        else:
            odds = ", ".join(f"{arm} {p:.1%}" for arm, p in arms.items())
            sentences.append(f"{choice}: '{chosen}' was drawn with probability {propensity:.1%} (of {odds}).")
    for slot, arms in record.get("asleep", {}).items():
        sentences += [f"{slot}: '{arm}' could not be used ({why})." for arm, why in arms.items()]
    return sentences


def _context(record: Mapping[str, Any]) -> list[str]:
    context = record["context"]
    if not context or record["action"] == "suppress":
        return []
    largest = sorted(context.items(), key=lambda entry: (-abs(entry[1]), entry[0]))[:MAX_CONTEXT]
    return ["Known of the person: " + ", ".join(f"{name} {value:.3g}" for name, value in largest) + "."]


def _chosen(record: Mapping[str, Any], choice: str) -> str:
    if choice == "channel":
        return str(record["channel"])
    if choice == "holdout":
        return "holdout" if record["action"] == "holdout" else "treatment"
    found = record["variants"].get(choice)
    return str(found) if found is not None else next(iter(record["arms"][choice]))


def _differences(record: Mapping[str, Any]) -> list[str]:
    """Make every choice again from what the record says it was made from."""
    found = []
    for choice, logged in record["random_draw"].items():
        key = draw_key(record["decision_id"], choice)
        arms = record["arms"][choice]
        if uniform_number(key) != logged:
            found.append(f"{choice}: the number drawn is {uniform_number(key)!r}, not {logged!r}")
            continue
        try:
            arm = list(arms)[draw(np.array(list(arms.values()), np.float64), key)]
        except ValueError as error:
            found.append(f"{choice}: {error}")
            continue
        if arm != _chosen(record, choice):
            found.append(f"{choice}: '{arm}' is drawn, not '{_chosen(record, choice)}'")
        if record["propensity"][choice] != arms[_chosen(record, choice)]:
            found.append(f"{choice}: the propensity is {arms[_chosen(record, choice)]!r}")
    return found


__all__ = ["Explanation", "explain", "reason_in_words"]
