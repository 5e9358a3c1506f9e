"""Why a decision fell as it did: in words, and recomputed from its record alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from bandits.arms import ArmModel
from bandits.linear import LinearModel, ReadyLinear
from bandits.policy import Floats, draw, is_distribution, uniform_number
from bandits.ready import ReadyPolicy
from bandits.spec import PolicySpec
from decisioning import slots
from decisioning.choice import NO_CONTACT, draw_key, held_out, holdout_number, holdouts_of
from decisioning.config import Config, Holdout
from decisioning.contexts import vector_of
from decisioning.wording import Fact, fact_in_words, reason_in_words

MAX_CONTEXT = 8
Recall = Callable[[str, int, PolicySpec], ArmModel | LinearModel | None]
"""(policy, version, rule) -> the model as it was then, None where it is not to be had."""


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


class _Slot(msgspec.Struct):
    arm: str
    chosen_at: str
    hour: Annotated[int, msgspec.Meta(ge=0, lt=slots.WEEK_HOURS)]
    shares: dict[str, float]
    policy: dict[str, Any] = {}


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
    because: list[Fact] = []
    fire_at: str | None = None
    expires_at: str | None = None
    content_hash: str | None = None
    model_versions: dict[str, int] = {}
    policy: dict[str, Any] = {}
    slot: _Slot | None = None


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
    audit
        Everything the record holds, and every step of making its choices again, to the last bit.
    """

    sentences: tuple[str, ...]
    differences: tuple[str, ...]
    audit: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One sentence a line."""
        return "\n".join(self.sentences)


def explain(record: Mapping[str, Any], config: Config | None = None, recall: Recall | None = None) -> Explanation:
    """Explain one record of `decision-log`.

    Parameters
    ----------
    record
        As it was published; nothing else is needed.
    config
        The configuration it was made with, if the holdout is to be recomputed too: its salt is in no record.
    recall
        Gives the models it names, if the probabilities are to be recomputed too.

    Raises
    ------
    IncompleteError
        Not all of it is there, or not as it was published.
    """
    read = _read(record)
    if isinstance(read, _Erasure):
        return Explanation((f"The person was erased at {read.decided_at}; this is the proof.",), ())
    sentences = [_headline(read), *_facts(read), _timing(read), *_refusals(read), *_choices(read), *_context(read)]
    asked = {} if recall is None else dict(_asked(read, recall))
    sentences += _models(read, asked if recall is not None else None)
    differences = (*_differences(read), *_regrouped(read, config), *_relearned(read, asked))
    sentences.append(
        "Recomputed from this record: "
        + ("every choice comes out the same." if not differences else "; ".join(differences))
    )
    sentences.append(
        f"Made with configuration {read.config_version}, "
        f"partition {read.as_of.partition} read up to offset {read.as_of.offset}."
    )
    return Explanation(tuple(sentences), differences, tuple(_audit(read, record, config, asked)))


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


def _facts(record: _Record) -> list[str]:
    return [said for fact in record.because if (said := fact_in_words(fact))]


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
        return NO_CONTACT if record.action == "suppress" else record.channel
    if choice == "holdout":
        return "holdout" if record.action == "holdout" else "treatment"
    if choice == "send_time":
        return record.slot.arm if record.slot else next(iter(record.arms[choice]), None)
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


def _regrouped(record: _Record, config: Config | None) -> Iterator[str]:
    """Draw the holdouts anew, where the configuration is given."""
    if config is None or "holdout" not in record.arms:
        return
    if config.version_hash != record.config_version:
        yield f"the configuration given is {config.version_hash}, not {record.config_version}"
        return
    held = any(held_out(holdout, scope, record.user_id) for holdout, scope in _holdouts(record, config))
    if held != (record.action == "holdout"):
        yield f"holdout: the salted hash says {'holdout' if held else 'treatment'!r}"


def _policies(record: _Record) -> Iterator[tuple[str, str, int]]:
    """Choices that a model made the probabilities of: (choice, policy, version)."""
    for policy, version in record.model_versions.items():
        campaign, _, choice = policy.partition("/")
        if campaign == record.campaign and choice in record.arms:
            yield choice, policy, version


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a model says of the arms of a choice: their probabilities, and (mean, deviation) of what each may bring."""

    probabilities: dict[str, float]
    scores: dict[str, tuple[float, float]]


def _asked(record: _Record, recall: Recall) -> Iterator[tuple[str, _Answer]]:
    """Each choice's probabilities, from the model and the rule that the record names, where the model is to be had."""
    for choice, policy, version in _policies(record):
        try:
            spec = PolicySpec.of(_rule(record, choice))
        except (TypeError, ValueError) as error:
            raise IncompleteError(f"policy: {error}") from None
        model = recall(policy, version, spec)
        if model is None:
            continue
        try:
            answer = _answer(record, list(record.arms[choice]), model.ready(spec))
        except ValueError as error:
            raise IncompleteError(f"model {policy} of version {version} cannot be asked: {error}") from None
        if answer is not None:
            yield choice, answer


def _answer(record: _Record, arms: list[str], ready: ReadyPolicy | ReadyLinear) -> _Answer | None:
    scores: dict[str, tuple[float, float]] = {}
    if isinstance(ready, ReadyPolicy):
        context = vector_of(record.context)
        found, scores = ready.probabilities(arms, context), ready.scores(arms, context)
    elif record.slot is not None and slots.are_arms(arms):
        found = ready.probabilities(slots.rows_of(arms, record.slot.hour, record.slot.shares))
    else:
        return None
    return _Answer(dict(zip(arms, found.tolist(), strict=True)), scores)


def _rule(record: _Record, choice: str) -> dict[str, Any]:
    return record.slot.policy if choice == "send_time" and record.slot else record.policy


def _models(record: _Record, asked: Mapping[str, _Answer] | None) -> Iterator[str]:
    """Which models made the probabilities, and whether they were computed again (None: nobody asked for it)."""
    for choice, policy, version in _policies(record):
        rule = ", ".join(f"{name} {value}" for name, value in _rule(record, choice).items())
        said = f"{choice}: the probabilities are those of model {policy} after {version} examples ({rule})"
        if asked is None:
            yield f"{said}; with that model they can be computed again."
        elif choice in asked:
            yield f"{said}, computed again from it."
        else:
            yield f"{said}, which was not found: they are taken as they are."


def _relearned(record: _Record, asked: Mapping[str, _Answer]) -> Iterator[str]:
    """What differs from the probabilities computed again."""
    for choice, answer in asked.items():
        for arm, probability in answer.probabilities.items():
            logged = record.arms[choice][arm]
            if probability != logged:
                yield f"{choice}: the model gives '{arm}' the probability {probability!r}, not {logged!r}"


def _audit(
    record: _Record, whole: Mapping[str, Any], config: Config | None, asked: Mapping[str, _Answer]
) -> Iterator[str]:
    """The whole record, then every choice made again, with numbers as they are."""
    yield "Record:"
    for name, value in whole.items():
        yield f"  {name}: {json.dumps(value, ensure_ascii=False)}"
    yield "Choices, made again:"
    for choice, arms in record.arms.items():
        yield f"  {choice}: '{_chosen(record, choice)}' with propensity {record.propensity[choice]!r}"
        low = 0.0
        with np.errstate(over="ignore"):  # as above
            bounds = np.cumsum(np.array(list(arms.values()), np.float64)).tolist()
        for arm, high in zip(arms, bounds, strict=True):
            yield f"    '{arm}' has probability {arms[arm]!r}: [{low!r}, {high!r})"
            low = high
        if choice in record.random_draw:
            key = draw_key(record.decision_id, choice)
            logged = record.random_draw[choice]
            yield f"    drawn from the key {key.decode()!r}: {uniform_number(key)!r}; logged: {logged!r}"
        if choice == "holdout":
            yield from _audited_group(record, config)
        if choice in asked:
            for arm, (mean, deviation) in asked[choice].scores.items():
                yield f"    '{arm}' was expected to bring {mean!r}, give or take {deviation!r}"
    product = " * ".join(repr(propensity) for propensity in record.propensity.values())
    yield f"  joint propensity: {product or 'no choice was made'} = {record.joint_propensity!r}"


def _audited_group(record: _Record, config: Config | None) -> Iterator[str]:
    if config is None:
        yield "    the holdout's salt is in no record; give the configuration to draw it anew"
        return
    for holdout, scope in _holdouts(record, config):
        number = holdout_number(holdout, scope, record.user_id)
        of = f"campaign {scope}" if scope else "everybody"
        yield f"    holdout of {of}: drawn {number!r}, held out below {holdout.share!r}"


def _holdouts(record: _Record, config: Config) -> list[tuple[Holdout, str]]:
    return holdouts_of(config, next((one for one in config.campaigns if one.id == record.campaign), None))


def _redrawn(record: _Record, choice: str, probabilities: Floats) -> Iterator[str]:
    key, logged = draw_key(record.decision_id, choice), record.random_draw[choice]
    arm, chosen = list(record.arms[choice])[draw(probabilities, key)], _chosen(record, choice)
    if uniform_number(key) != logged:
        yield f"{choice}: the number drawn is {uniform_number(key)!r}, not {logged!r}"
    elif arm != chosen:
        yield f"{choice}: '{arm}' is drawn, not '{chosen}'"
