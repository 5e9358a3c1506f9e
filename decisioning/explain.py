"""Why a decision fell as it did: in words, and recomputed from its record alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

from bandits.policy import Floats, draw, is_distribution, uniform_number
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


class IncompleteError(ValueError):
    """A record that lacks something, or has it otherwise than it was published; the message says what."""


class _Trigger(msgspec.Struct):
    event: str
    at: str


class _AsOf(msgspec.Struct):
    partition: int
    offset: int


class _Experiment(msgspec.Struct):
    group: str


class _Record(msgspec.Struct):
    """What is read of a record of `decision-log`."""

    decision_id: str
    campaign: str
    user_id: str
    action: Literal["send", "suppress", "holdout"]
    channel: str | None
    variants: dict[str, str]
    trigger: _Trigger
    due_at: str
    decided_at: str
    reasons: list[str]
    channel_reasons: dict[str, list[str]]
    propensity: dict[str, float]
    joint_propensity: float | None
    arms: dict[str, dict[str, float]]
    context: dict[str, float]
    random_draw: dict[str, float]
    as_of: _AsOf
    config_version: str
    experiment: _Experiment
    asleep: dict[str, dict[str, str]] = {}
    cancelled_by: str | None = None


class _Erasure(msgspec.Struct):
    """What is read of the proof of an erasure."""

    campaign: None
    decided_at: str


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

    Raises
    ------
    IncompleteError
        Not all of it is there, or not as it was published.
    """
    read = _read(record)
    if isinstance(read, _Erasure):
        return Explanation((f"The person was erased at {read.decided_at}; this is the proof.",), ())
    sentences = [_headline(read), _timing(read), *_refusals(read), *_choices(read), *_context(read)]
    differences = tuple(_differences(read))
    sentences.append(
        "Recomputed from this record: "
        + ("every choice comes out the same." if not differences else "; ".join(differences))
    )
    sentences.append(
        f"Made with configuration {read.config_version}, "
        f"partition {read.as_of.partition} read up to offset {read.as_of.offset}."
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


def _read(record: Mapping[str, Any]) -> _Record | _Erasure:
    try:
        if record.get("campaign") is None and record.get("reasons") == ["erased"]:
            return msgspec.convert(record, _Erasure)
        read = msgspec.convert(record, _Record)
    except msgspec.ValidationError as error:
        raise IncompleteError(str(error)) from None
    lack = next(_lacks(read), None)
    if lack is not None:
        raise IncompleteError(lack)
    return read


def _lacks(record: _Record) -> Iterator[str]:
    """What keeps the choices from being made again, though every field is there."""
    made = {"send": {"channel", *record.variants}, "holdout": {"holdout"}, "suppress": set[str]()}[record.action]
    for choice in sorted({*made, *record.propensity, *record.random_draw} - record.arms.keys()):
        yield f"arms has no {choice!r}"
    for choice, arms in record.arms.items():
        chosen = _chosen(record, choice)
        if chosen not in arms:
            yield f"the arms of {choice!r} have no {chosen!r}"
        if choice not in record.propensity:
            yield f"propensity has no {choice!r}"
        if choice not in record.random_draw and choice != "holdout" and len(arms) > 1:
            yield f"random_draw has no {choice!r}"


def _headline(record: _Record) -> str:
    who = f"{record.campaign} for {record.user_id}"
    if record.action == "send":
        variants = ", ".join(f"{slot} '{arm}'" for slot, arm in record.variants.items())
        return f"SENT: {who} by {record.channel} with {variants}."
    why = "; ".join(reason_in_words(code) for code in record.reasons)
    by = f" (event {record.cancelled_by})" if record.cancelled_by else ""
    return f"{'HELD OUT' if record.action == 'holdout' else 'NOT SENT'}: {who}: {why}{by}."


def _timing(record: _Record) -> str:
    trigger = record.trigger
    waited = [reason_in_words(code) for code in record.reasons if code.startswith("deferred:")]
    text = f"Triggered by '{trigger.event}' at {trigger.at}, due {record.due_at}, decided {record.decided_at}"
    return text + (f"; {waited[0]}." if waited else ".")


def _refusals(record: _Record) -> list[str]:
    return [
        f"Channel {channel} was refused: {'; '.join(reason_in_words(code) for code in codes)}."
        for channel, codes in record.channel_reasons.items()
    ]


def _choices(record: _Record) -> list[str]:
    sentences = []
    for choice, propensity in record.propensity.items():
        arms = record.arms[choice]
        chosen = _chosen(record, choice)
        if len(arms) == 1:
            sentences.append(f"{choice}: '{chosen}' was the only arm.")
        else:
            odds = ", ".join(f"{arm} {p:.1%}" for arm, p in arms.items())
            sentences.append(f"{choice}: '{chosen}' was drawn with probability {propensity:.1%} (of {odds}).")
    for slot, asleep in record.asleep.items():
        sentences += [f"{slot}: '{arm}' could not be used ({why})." for arm, why in asleep.items()]
    return sentences


def _context(record: _Record) -> list[str]:
    context = record.context
    if not context or record.action == "suppress":
        return []
    largest = sorted(context.items(), key=lambda entry: (-abs(entry[1]), entry[0]))[:MAX_CONTEXT]
    return ["Known of the person: " + ", ".join(f"{name} {value:.3g}" for name, value in largest) + "."]


def _chosen(record: _Record, choice: str) -> str | None:
    if choice == "channel":
        return record.channel
    if choice == "holdout":
        return "holdout" if record.action == "holdout" else "treatment"
    if choice == "send_time":
        return next(iter(record.arms[choice]), None)
    return record.variants.get(choice)


def _differences(record: _Record) -> list[str]:
    """Make every choice again from what the record says it was made from."""
    found = []
    for choice, arms in record.arms.items():
        chosen = _chosen(record, choice)
        assert chosen is not None, "a record that lacks nothing says what was chosen"
        if record.propensity[choice] != arms[chosen]:
            found.append(f"{choice}: the propensity is {arms[chosen]!r}, not {record.propensity[choice]!r}")
        p = np.array(list(arms.values()), np.float64)
        with np.errstate(over="ignore"):  # a damaged record may hold any numbers
            is_sound = is_distribution(p)
        if not is_sound:
            found.append(f"{choice}: the probabilities are not positive numbers adding to 1")
        elif choice in record.random_draw:
            found += _redrawn(record, choice, p)
    joint = math.prod(record.propensity.values()) if record.propensity else None
    if record.joint_propensity != joint:
        found.append(f"the joint propensity is {joint!r}, not {record.joint_propensity!r}")
    group = "holdout" if record.action == "holdout" else "treatment"
    if "holdout" in record.arms and record.experiment.group != group:
        found.append(f"holdout: the group of this action is {group!r}, not {record.experiment.group!r}")
    return found


def _redrawn(record: _Record, choice: str, probabilities: Floats) -> Iterator[str]:
    key, logged = draw_key(record.decision_id, choice), record.random_draw[choice]
    arm, chosen = list(record.arms[choice])[draw(probabilities, key)], _chosen(record, choice)
    if uniform_number(key) != logged:
        yield f"{choice}: the number drawn is {uniform_number(key)!r}, not {logged!r}"
    elif arm != chosen:
        yield f"{choice}: '{arm}' is drawn, not '{chosen}'"


__all__ = ["Explanation", "IncompleteError", "explain", "reason_in_words"]
