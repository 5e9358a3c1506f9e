"""Reasons not to send as people say them, with the numbers they were found from."""

from __future__ import annotations

import msgspec

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
    "not_worthwhile": "sending nothing was expected to be worth more than a message",
    "cooldown": "the campaign wrote to this person too lately",
    "not_eligible": "the campaign's own conditions do not hold",
    "out_of_stock": "the product is out of stock",
    "erased": "the person was erased",
    "no_channel": "no channel was left",
    "deferred:quiet_hours": "it waited for the end of quiet hours",
}


class QuietHours(msgspec.Struct):
    """Quiet hours that held, in the person's own zone."""

    channel: str
    from_: str = msgspec.field(name="from")
    to: str
    zone: str
    end_at: str


class Fact(msgspec.Struct):
    """What a reason was found from, as `because` wrote it; which fields are there depends on the reason."""

    reason: str
    channel: str | None = None
    when: str | None = None
    cap_channel: str | None = None
    used: int | None = None
    max: int | None = None
    per: str | None = None
    zone: str | None = None
    room_at: str | None = None
    fatigue: float | None = None
    limit: float | None = None
    half_life: str | None = None
    cooldown: str | None = None
    last_decision_id: str | None = None
    last_at: str | None = None
    ends_at: str | None = None
    product_id: str | None = None
    message_id: str | None = None
    at: str | None = None
    expires_after: str | None = None
    expires_at: str | None = None
    quiet_hours: QuietHours | None = None
    since: str | None = None
    said_at: str | None = None
    default: str | None = None
    trait: str | None = None
    room_for: str | None = None
    cancel_on: list[str] | None = None


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


def fact_in_words(fact: Fact) -> str:
    """Rule and numbers of a reason as a sentence; empty where the reason says all there is to say.

    Examples
    --------
    >>> fact_in_words(Fact("frequency_cap:daily", cap_channel="any", used=3, max=3, per="24h", room_at="tomorrow"))
    'frequency_cap:daily: 3 sends on any channel within 24h, at most 3 are allowed; there is room again at tomorrow.'
    """
    said = "; ".join(text for text in (_limits(fact), _times(fact), _settings(fact)) if text)
    on = f" ({fact.channel})" if fact.channel else ""
    return f"{fact.reason}{on}: {said}." if said else ""


def _limits(fact: Fact) -> str:
    if fact.room_for is not None:
        return f"there was no room for more {fact.room_for} than {fact.max:,}"
    if fact.used is not None:
        where = "any channel" if fact.cap_channel == "any" else fact.cap_channel
        window = f"this {fact.per} in {fact.zone}" if fact.zone else f"within {fact.per}"
        again = f"; there is room again at {fact.room_at}" if fact.room_at else ""
        sends = "send" if fact.used == 1 else "sends"
        return f"{fact.used:,} {sends} on {where} {window}, at most {fact.max:,} are allowed{again}"
    if fact.fatigue is not None:
        return f"fatigue was {fact.fatigue:.4g}, more than {fact.limit:.4g} (half-life {fact.half_life})"
    return ""


def _times(fact: Fact) -> str:
    if fact.last_at is not None:
        last = f"decision {fact.last_decision_id} was sent at {fact.last_at}"
        return f"{last}, and the cooldown of {fact.cooldown} ends at {fact.ends_at}"
    if fact.expires_at is not None:
        said = f"it was to be sent until {fact.expires_at} ({fact.expires_after} after due)"
        quiet = fact.quiet_hours
        if quiet is None:
            return said
        hours = f"quiet hours of {quiet.channel} from {quiet.from_} to {quiet.to} in {quiet.zone}"
        return f"{said}; {hours} last until {quiet.end_at}"
    if fact.at is not None:
        named = f", one of {', '.join(fact.cancel_on)}" if fact.cancel_on else ""
        return f"by event {fact.message_id} at {fact.at}{named}"
    if fact.since is not None:
        return f"since {fact.since}"
    return f"said at {fact.said_at}" if fact.said_at is not None else ""


def _settings(fact: Fact) -> str:
    if fact.when is not None:
        holds = "holds" if fact.reason.startswith("rule:") else "does not hold"
        return f"{fact.when} {holds}"
    if fact.product_id is not None:
        return f"product {fact.product_id}"
    if fact.reason == "cancelled" and fact.message_id is None:
        return "its campaign is in the configuration no more"
    if fact.default is not None:
        return f"the person said nothing, and consent is {fact.default} by default"
    return f"the trait {fact.trait} is not set" if fact.trait is not None else ""
