"""A configuration in plain sentences, for whoever has to agree to it and does not read YAML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from decisioning import durations
from decisioning.config import Campaign, Cap, Config, Holdout, QuietHours, Trigger, Variant
from decisioning.followups import DECISION_SENT
from decisioning.plan import FELT_MS

ALL = "for all campaigns"
_ADDRESSES = {"email": "e-mail address", "phone": "phone number", "push_token": "push token", "id": "own id"}
_PREDICTED = {
    "open": "to open a message",
    "click": "to click in it",
    "convert": "to do what it is for",
    "unsubscribe": "to unsubscribe because of it",
    "churn": "to do nothing for 30 days after it",
}
_ONE = {"d": "day", "h": "hour", "m": "minute", "s": "second"}


def describe(config: Config) -> dict[str, list[str]]:
    """Sentences about a checked configuration: what holds for everybody, under `ALL`, and for each campaign by id."""
    return {ALL: list(_general(config))} | {one.id: list(_campaign(config, one)) for one in config.campaigns}


def duration_in_words(length_ms: int) -> str:
    """Spell a duration out.

    Examples
    --------
    >>> duration_in_words(86_400_000), duration_in_words(5_400_000)
    ('1 day', '90 minutes')
    """
    spelled = durations.spell(length_ms)
    count, unit = spelled[:-1], _ONE[spelled[-1]]
    return f"{count} {unit}" if count == "1" else f"{count} {unit}s"


def _general(config: Config) -> Iterator[str]:
    order = ", in this order of preference unless something better has been learned" if len(config.channels) > 1 else ""
    yield f"People can be reached by {_listed(config.channels)}{order}."
    yield f"Whose time zone is unknown is taken to live in {config.timezone}."
    yield from _quiet(config)
    agreed = "may be written to" if config.consent.default == "granted" else "is not written to"
    yield f"Who has said nothing about a channel {agreed} there."
    yield from (_cap(cap) for cap in config.caps)
    if config.fatigue is not None:
        half_life = duration_in_words(config.fatigue.half_life_ms)
        yield (
            f"Nobody is written to whose fatigue is above {config.fatigue.limit:g}: it rises with every message "
            f"without a reaction, and an unanswered one counts half after {half_life}."
        )
    if config.holdout is not None:
        yield _holdout(config.holdout, "of all people")
    for rule in config.rules:
        whom = "Nothing" if rule.campaigns is None else f"Nothing of {_listed(rule.campaigns)}"
        yield f"{whom} is sent where {rule.when} (rule {rule.name})."
    if config.propensity is not None:
        said = (_PREDICTED[label] for label in config.propensity.labels)
        yield f"It is learned how likely everybody who agrees to personalization is {_listed(said, 'or')}."
    if config.guardrails.banned:
        yield f"No text may say {_listed((repr(word) for word in config.guardrails.banned), 'or')}."
    for slot, most in config.guardrails.max_length.items():
        yield f"A {slot} has at most {most} characters."


def _quiet(config: Config) -> Iterator[str]:
    """One sentence for all channels that have the same quiet hours."""
    for hours in dict.fromkeys(config.quiet_hours_of(channel) for channel in config.channels):
        if hours is not None:
            channels = [channel for channel in config.channels if config.quiet_hours_of(channel) == hours]
            where = "" if len(channels) == len(config.channels) else f" by {_listed(channels, 'or')}"
            yield f"No marketing is sent{where} from {_clocks(hours)}, by the person's own clock; it waits until then."


def _clocks(hours: QuietHours) -> str:
    return f"{durations.spell_clock(hours.from_minute)} to {durations.spell_clock(hours.to_minute)}"


def _cap(cap: Cap) -> str:
    what = "message" if cap.max == 1 else "messages"
    where = "over all channels" if cap.channel == "any" else f"by {cap.channel}"
    window = f"in a calendar {cap.calendar} of theirs"
    if cap.per_ms is not None:
        window = f"in any {duration_in_words(cap.per_ms)}"
    return f"A person gets at most {cap.max} {what} of marketing {where} {window} (cap {cap.name})."


def _holdout(holdout: Holdout, of: str) -> str:
    return f"{100 * holdout.share:.4g}% {of}, always the same ones, are never written to."


def _campaign(config: Config, campaign: Campaign) -> Iterator[str]:
    trigger = campaign.trigger
    yield f"It begins with {_start(trigger)}, and is decided {_when(trigger)}."
    yield from _moves(trigger)
    addresses: dict[str, str] = {name: channel.address for name, channel in config.channels.items()}
    channels = [f"{name} ({_ADDRESSES[addresses[name]]})" for name in config.channels_of(campaign)]
    yield f"They get one message, by {_listed(channels, 'or')}."
    if campaign.when is not None:
        yield f"Only those get it for whom {campaign.when} holds at that moment."
    yield from _bounds(config, campaign)
    for slot, variants in campaign.variants.items():
        yield _slot(campaign, slot, variants)
    if campaign.goal is not None:
        worth = f", worth its {campaign.goal.value}" if campaign.goal.value is not None else ""
        within = duration_in_words(campaign.goal.within_ms)
        yield f"It has succeeded with {_listed(campaign.goal.events, 'or')} within {within} of the message{worth}."
        if campaign.goal.clip is not None:
            yield f"No success counts for more than {campaign.goal.clip:g}."
    yield from _lessons(campaign)


def _start(trigger: Trigger) -> str:
    said = "any message sent" if trigger.events == (DECISION_SENT,) else _listed(trigger.events, "or")
    where = f" where {trigger.where}" if trigger.where is not None else ""
    return f"{said}{where}"


def _when(trigger: Trigger) -> str:
    due = f"{duration_in_words(trigger.delay_ms)} later" if trigger.delay_ms else "at once"
    if trigger.per is not None:
        return f"{due}, once for each {trigger.per}"
    return f"{due}, once for all that happens until then" if trigger.delay_ms else due


def _moves(trigger: Trigger) -> Iterator[str]:
    if trigger.restart_on:
        most = ""
        if trigger.max_wait_ms is not None:
            most = f", but no longer than {duration_in_words(trigger.max_wait_ms)} after the first event"
        yield f"The wait begins anew with {_listed(trigger.restart_on, 'or')}{most}."
    if trigger.cancel_on:
        yield f"It is called off by {_listed(trigger.cancel_on, 'or')}."
        if any(name.endswith(("Opened", "Clicked")) for name in trigger.cancel_on):
            yield "Opens and clicks of machines call nothing off."


def _bounds(config: Config, campaign: Campaign) -> Iterator[str]:
    if campaign.requires_stock is not None:
        yield f"It is not sent where the product at {campaign.requires_stock} is known to be out of stock."
    if campaign.send_time.within_ms:
        yield f"The hour is picked within {duration_in_words(campaign.send_time.within_ms)}."
    if campaign.expires_after_ms is not None:
        yield f"It is not sent any more {duration_in_words(campaign.expires_after_ms)} after it was due."
    if campaign.cooldown_ms:
        yield f"Nobody gets it again within {duration_in_words(campaign.cooldown_ms)}."
    if campaign.kind == "transactional":
        counted = "; it counts towards the caps of others" if campaign.count else ""
        yield (
            "It is transactional: it goes out whatever was said of consent to marketing, caps, fatigue, quiet hours "
            f"and holdout, but not after a hard bounce or complaint{counted}."
        )
    elif campaign.holdout is not None:
        yield _holdout(campaign.holdout, "of its people" if config.holdout is None else "of its own people too")


def _lessons(campaign: Campaign) -> Iterator[str]:
    """From what it learns beside its goal, and within which bounds."""
    policy, goal = campaign.policy, campaign.goal
    for worth in policy.rewards:
        if goal is not None and worth.event in goal.events:
            yield f"{worth.event} counts {worth.weight:g} times its worth."
            continue
        within = worth.within_ms or (goal.within_ms if goal else FELT_MS)
        yield f"{worth.event} within {duration_in_words(within)} of a message counts {worth.weight:g}, once."
    for what, cost in (
        ("unsubscribes", policy.penalties.unsubscribed),
        ("marks it as spam", policy.penalties.complained),
    ):
        if cost:
            yield f"Whoever {what} after a message takes {cost:g} off what it is worth."
    if policy.contact_cost is not None:
        yield (
            f"A message counts as costing {policy.contact_cost:g}: where nothing at all is expected to be worth more, "
            "nothing is sent."
        )
    if policy.half_life_ms is not None:
        yield f"What was learned counts half after {duration_in_words(policy.half_life_ms)}."
    if policy.horizon is not None:
        yield f"About {policy.horizon:,} messages are expected in all, which bounds how long it tries things out."


def _slot(campaign: Campaign, slot: str, variants: Iterable[Variant]) -> str:
    said = []
    for variant in variants:
        when = f" (only where {variant.when})" if variant.when is not None else ""
        draft = " (a draft, never sent)" if variant.status == "draft" else ""
        said.append(f'{variant.id} "{" ".join(variant.text.split())}"{when}{draft}')
    if len(said) == 1:
        return f"Its {slot} is {said[0]}."
    other = f", but never what {campaign.excluded} says was used before" if campaign.excluded is not None else ""
    return f"Its {slot} is one of {_listed(said, 'or')}, chosen by {campaign.policy.algorithm}{other}."


def _listed(names: Iterable[str], word: str = "and") -> str:
    *most, last = names
    return f"{', '.join(most)} {word} {last}" if most else last
