"""From a timer that is due to its outcome: recheck everything, choose, render, record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from msgspec import structs

from decisioning import because, decision, examples, followups, lifecycle, propensities
from decisioning.choice import (
    MAX_CONTENT_CHARACTERS,
    Choices,
    choose_channel,
    choose_group,
    choose_send_time,
    choose_slot,
    choose_variants,
)
from decisioning.config import Config
from decisioning.contexts import clock
from decisioning.decision import AsOf, Outcome
from decisioning.durations import UNIT_MS
from decisioning.eligibility import Case, Verdict, address_of, examine, fatigue_of, zone_of
from decisioning.events import Event, text
from decisioning.followups import DECISION_SENT
from decisioning.learning import UNLEARNED, Advice, Models
from decisioning.lifecycle import CHANNELS
from decisioning.localtime import DAY_MS
from decisioning.plan import Plan, by_event
from decisioning.profile import (
    MAX_PENDING,
    MAX_RESERVATIONS,
    Mark,
    Pending,
    Profile,
    Reservation,
    Send,
    bounded_sends,
    count_day,
    remember_engaged,
)
from decisioning.pseudonyms import Pseudonyms
from decisioning.rewards import Reward, penalise
from decisioning.slots import NOW, open_slots, week_hour
from decisioning.slots import shares as habit
from decisioning.triggers import Cancelled, cancelled_by, has_room, slot_bytes
from decisioning.unsubscribe import Links
from decisioning.view import UserView, environment
from decisioning.work import Work
from features.signals import CLICKED, OPENED, SENT
from features.vector import NAMES, named

DEFERRED = "deferred:quiet_hours"
NOT_WORTHWHILE = "not_worthwhile"
CALENDAR_MS = 8 * DAY_MS  # no calendar window looks back further, whatever the clocks do
NEUTRAL = dict.fromkeys(NAMES, 0.0)
CORRECTABLE_MS = 7 * DAY_MS  # how long after its window an outcome that names its decision still finds it


@dataclass(frozen=True, slots=True)
class Moment:
    """When and in which step something is decided."""

    now_ms: int
    as_of: AsOf
    models: Models = UNLEARNED


class Decider:
    """Makes the decisions of one configuration; changes nothing but the working set it is given."""

    def __init__(self, config: Config, plans: dict[str, Plan], links: Links, pseudonyms: Pseudonyms) -> None:
        self.config = config
        self.plans = plans
        self.links = links
        self._pseudonyms = pseudonyms
        self.by_event = by_event(plans.values())
        self.propensities = propensities.of(config)
        self._kept_ms = {
            plan.id: max(plan.campaign.cooldown_ms, plan.credited_ms and plan.credited_ms + CORRECTABLE_MS)
            for plan in plans.values()
        }
        self._keeps_hours = any(plan.campaign.send_time.within_ms for plan in plans.values())
        self._caps_look_back_ms = max([CALENDAR_MS, *(cap.per_ms or 0 for cap in config.caps)])

    def fire(self, work: Work, due: Sequence[str], until_ms: int, moment: Moment) -> None:
        """Decide every timer due at or before `until_ms`, in order of (due, person); those of `work.held` stay."""
        held = work.held
        people = {person for person in (*due, *work.touched()) if person in work.slot}
        ready = [
            (pending.fire_ms, person, pending.campaign, pending.per, pending)
            for person in people
            for pending in work.profile(person).pending
            if pending.fire_ms <= until_ms and pending.campaign not in held
        ]
        if ready:
            work.evaluate(list(dict.fromkeys(person for _, person, *_ in ready)), moment.now_ms)
        for _, person, _, _, pending in sorted(ready, key=lambda entry: entry[:4]):
            if not self._still_due(work.profile(person), pending, until_ms):
                continue
            outcome = self._decide(work, person, pending, moment)
            work.touch(person)
            if outcome is not None:
                work.profile(person).pending.remove(pending)
                self._record(work, outcome)
                self._follow_up(work, outcome, moment)

    def happen(self, work: Work, person: str, event: Event, body: dict[str, Any], moment: Moment) -> None:
        """Let a `track` event act on a person; `body` is empty where it means nothing to any campaign."""
        plans = self.by_event.get(event.event or "", [])
        user = self.view(work, person, moment)
        life = lifecycle.advance(work.profile(person), plans, event, body, person, user, moment.now_ms)
        for where in life.errors:
            work.count("expression_errors_total", where)
        if life.trimmed:
            work.count("trimmed_events_total")
        for cancelled in life.ended:
            self.end(work, person, cancelled, moment)
        if life.stranger:
            work.count("unattributed_rewards_total")
        if life.refused is not None:
            named = text(event.props, "decision_id")
            charged = penalise(work.profile(person), self.plans, event, life.refused, named)
            life.rewards += [] if charged is None else [charged]
        for reward in life.rewards:
            self._credit(work, person, event.event or "", reward, moment)
        if self.propensities is not None:
            pseudonym, profile = self._pseudonyms.of(person), work.profile(person)
            outcomes = self.propensities.happened(profile, event, life, self.plans, moment.now_ms, pseudonym)
            work.effects.examples += outcomes
        if life.engaged is not None:
            channel, what = life.engaged
            kind = OPENED if what == lifecycle.OPENED else CLICKED
            work.signal(person, kind, event.at_ms, 0.0, CHANNELS.index(channel))
            if self._keeps_hours:
                remember_engaged(work.profile(person), [event.at_ms // UNIT_MS["m"]])

    def seen(self, work: Work, person: str, event: Event, moment: Moment) -> None:
        """Let an event be a sign of life."""
        if self.propensities is None:
            return
        profile, pseudonym = work.profile(person), self._pseudonyms.of(person)
        work.effects.examples += self.propensities.seen(profile, event, moment.now_ms, pseudonym)
        work.mark(person, awaited=propensities.awaits_life(profile))

    def forget(self, work: Work, person: str, moment: Moment) -> None:
        """Take back what was learned from a person, as far as it is known what that was."""
        pseudonym = self._pseudonyms.of(person)
        if self.propensities is not None:
            work.effects.examples += self.propensities.forgotten(work.profile(person), moment.now_ms, pseudonym)
        for send in work.profile(person).sends:
            taken_back = examples.forgotten(send, moment.now_ms, pseudonym)
            work.effects.examples += taken_back
            work.count("forgotten_examples_total", send.campaign, by=len(taken_back))

    def end(self, work: Work, person: str, cancelled: Cancelled, moment: Moment) -> None:
        """Record a timer that ended before it was due: cancelled, without room, or its person erased."""
        outcome = self._suppressed(person, cancelled.pending, moment)
        outcome.reasons = [cancelled.reason]
        if cancelled.by is not None:
            _cancel(outcome, cancelled.by)
        elif cancelled.reason == "not_eligible":
            outcome.because = because.without_room("timers", MAX_PENDING)
        self._record(work, outcome)

    def view(self, work: Work, person: str, moment: Moment) -> UserView:
        """What rules and texts may read of a person."""
        profile, now_ms = work.profile(person), moment.now_ms
        fatigue = fatigue_of(self.config, profile, now_ms)
        return UserView(
            person,
            profile,
            now_ms,
            fatigue,
            lambda: named(work.vector(person, now_ms)),
            lambda: self._predicted(work, person, moment, fatigue),
        )

    def _predicted(self, work: Work, person: str, moment: Moment, fatigue: float) -> dict[str, float]:
        """What propensity models say of a person."""
        profile, now_ms = work.profile(person), moment.now_ms
        if self.propensities is None or not self._may_personalize(profile):
            return {}
        context = _context(work, person, now_ms, zone_of(self.config, profile), fatigue)
        return self.propensities.scores(profile, context, now_ms, moment.models)

    def _credit(self, work: Work, person: str, event: str, reward: Reward, moment: Moment) -> None:
        """Publish what an outcome is worth, and count it."""
        send, value = reward.send, reward.value
        pseudonym = self._pseudonyms.of(person)
        work.effects.examples += examples.corrections(send, moment.now_ms, pseudonym, value)
        work.count("reward_total", send.campaign, event, by=max(value, 0.0))
        work.count("penalties_total", send.campaign, event, by=max(-value, 0.0))
        if reward.late:
            work.count("late_rewards_total", send.campaign)
        if reward.clipped:
            work.count("clipped_rewards_total", send.campaign)

    def _still_due(self, profile: Profile, pending: Pending, until_ms: int) -> bool:
        """Whether no decision made before it in this step has cancelled or moved a timer."""
        if DECISION_SENT not in self.by_event:
            return True
        return pending.fire_ms <= until_ms and any(pending is other for other in profile.pending)

    def _follow_up(self, work: Work, outcome: Outcome, moment: Moment) -> None:
        """Let a decision to send be an event of the person's, if that means anything to a campaign."""
        if outcome.action != "send" or DECISION_SENT not in self.by_event:
            return
        sent = followups.happened(outcome)
        if sent is not None:
            self.happen(work, outcome.person, *sent, moment)

    def _decide(self, work: Work, person: str, pending: Pending, moment: Moment) -> Outcome | None:
        """The outcome of one timer; None where it waits for the end of quiet hours."""
        plan, outcome = self.plans.get(pending.campaign), self._suppressed(person, pending, moment)
        mark = cancelled_by(pending, moment.now_ms)
        if plan is None or mark is not None:
            _cancel(outcome, mark)
            return outcome
        case = self._case(work, outcome, plan, moment)
        verdict = examine(case)
        for where in verdict.errors:
            work.count("expression_errors_total", where)
        if self._waits(case, verdict, moment.models):
            return None
        if verdict.defer_to_ms is not None:
            pending.fire_ms = verdict.defer_to_ms
            if DEFERRED not in pending.deferred:
                pending.deferred.append(DEFERRED)
            return None
        outcome.channel_reasons = verdict.refused
        if verdict.reasons:
            outcome.reasons, outcome.because = verdict.reasons, because.facts(case, verdict)
        else:
            outcome.reasons = self._choose(work, case, verdict, outcome, moment.models)
        return outcome

    def _waits(self, case: Case, verdict: Verdict, models: Models) -> bool:
        """Whether the decision waits for an hour, which is chosen here, once, where the campaign has a window for it.

        What only time stands against (quiet hours, full caps) may have room later; what else does is final.
        """
        pending = case.pending
        if not case.plan.campaign.send_time.within_ms or pending.chosen is not None:
            return False
        if verdict.reasons and not any(code.startswith("frequency_cap:") for code in verdict.reasons):
            return False
        if not choose_group(Choices(), case):  # whoever is held out waits for nothing
            return False
        open_ms = open_slots(case)
        if not open_ms or not has_room(case.profile, slot_bytes(len(open_ms))):
            return False
        shares = {}
        if self._may_personalize(case.profile):
            base = week_hour(case.now_ms, case.zone)
            shares = habit(case.profile.engaged, case.now_ms, case.zone, open_ms, base)
        pending.chosen = choose_slot(case, open_ms, shares, Advice(models, case.plan, {}))
        if pending.chosen.arm == NOW:
            return False
        pending.fire_ms = open_ms[pending.chosen.arm]
        return True

    def _choose(self, work: Work, case: Case, verdict: Verdict, outcome: Outcome, models: Models) -> list[str]:
        """Make all choices and say in `outcome` what they are; the reasons to go with them."""
        choices = outcome.choices
        if self._may_personalize(case.profile):
            outcome.context = _context(work, case.person, case.now_ms, case.zone, case.fatigue)
            self._predict(case, outcome, models)
        elif case.plan.marketing:
            case = _as_stranger(case)
        if not choose_group(choices, case):
            outcome.action = "holdout"
            return ["holdout"]
        advice = Advice(models, case.plan, outcome.context, choices.versions)
        channel = choose_channel(choices, verdict.channels, case, advice)
        if channel is None:
            return [NOT_WORTHWHILE]
        choose_send_time(choices, case)
        awake = choose_variants(choices, case, advice)
        outcome.asleep = choices.asleep
        for (slot, reason), arms in choices.failures.items():
            work.count("asleep_variants_total", case.plan.id, slot, reason, by=arms)
        if not awake:
            outcome.choices = Choices()
            if not choices.asleep:
                outcome.because = because.without_room("characters", MAX_CONTENT_CHARACTERS)
            return ["not_eligible"]
        outcome.action = "send"
        outcome.address = address_of(self.config, case.profile, case.person, channel)
        return list(case.pending.deferred)

    def _suppressed(self, person: str, pending: Pending, moment: Moment) -> Outcome:
        """A decision not to send, for reasons still to be said."""
        return Outcome(
            decision_id=decision.decision_id(pending.campaign, pending.person, pending.first.message_id),
            plan=self.plans.get(pending.campaign),
            pending=pending,
            person=person,
            action="suppress",
            reasons=[],
            decided_ms=moment.now_ms,
            as_of=moment.as_of,
            config_version=self.config.version_hash,
            choices=Choices(),
        )

    def _case(self, work: Work, outcome: Outcome, plan: Plan, moment: Moment) -> Case:
        person, pending, now_ms = outcome.person, outcome.pending, outcome.decided_ms
        profile = work.profile(person)
        user = self.view(work, person, moment)
        body: dict[str, Any] = orjson.loads(pending.latest.body)
        path = plan.campaign.requires_stock
        stock = None if path is None else work.state.stock.get(path.key(body))
        return Case(
            decision_id=outcome.decision_id,
            plan=plan,
            config=self.config,
            person=person,
            profile=profile,
            pending=pending,
            now_ms=now_ms,
            zone=zone_of(self.config, profile),
            env=environment(plan, body, user, now_ms),
            fatigue=user.fatigue,
            in_stock=stock is None or stock.in_stock,
        )

    def _may_personalize(self, profile: Profile) -> bool:
        """Whether what is known of the person may have a say in what they are sent."""
        given = profile.consent.get("personalization")
        return self.config.consent.default == "granted" if given is None else bool(given.value)

    def _predict(self, case: Case, outcome: Outcome, models: Models) -> None:
        """Let the choices know what propensity models say."""
        if self.propensities is not None:
            predicted = self.propensities.scores(case.profile, outcome.context, case.now_ms, models)
            outcome.context |= {f"propensity_{label}": p for label, p in predicted.items()}
            outcome.choices.versions |= models.versions_of(predicted)

    def _still_needed(self, sends: list[Send], now_ms: int) -> list[Send]:
        """Sends that a cooldown counts or an outcome may still be credited to."""
        after = self._kept_ms
        return [send for send in sends if send.at_ms > now_ms - after.get(send.campaign, 0)]

    def _record(self, work: Work, outcome: Outcome) -> None:
        """Publish a decision, and remember of it what later events need."""
        effects, profile, plan = work.effects, work.profile(outcome.person), outcome.plan
        channel = outcome.choices.chosen.get("channel", "")
        log, decided = decision.published(outcome, self.links)
        effects.log.append(log)
        reason = outcome.reasons[0] if outcome.reasons else ""
        work.count("decisions_total", outcome.pending.campaign, outcome.action, reason, channel)
        work.touch(outcome.person)
        if plan is None or (outcome.action == "suppress" and outcome.reasons != [NOT_WORTHWHILE]):
            return
        send = decision.remembered(outcome)
        effects.examples += examples.examples(send, self._pseudonyms.of(outcome.person))
        if not plan.credited_ms:  # nothing will be credited to it
            send = structs.replace(send, choices={}, context={})
        profile.sends = bounded_sends([*self._still_needed(profile.sends, outcome.decided_ms), send])
        if decided is None:
            return
        effects.decisions.append(decided)
        effects.fired.append((plan.id, outcome.pending.fire_ms))
        if self.propensities is not None:
            pseudonym = self._pseudonyms.of(outcome.person)
            effects.examples += self.propensities.sent(profile, plan, outcome, channel, pseudonym)
            work.mark(outcome.person, awaited=propensities.awaits_life(profile))
        if plan.campaign.counts:
            room = Reservation(outcome.decision_id, channel, outcome.decided_ms)
            forgotten_ms = outcome.decided_ms - self._caps_look_back_ms
            held = profile.reservations  # oldest first
            if held and held[0].at_ms <= forgotten_ms:
                held = [reservation for reservation in held if reservation.at_ms > forgotten_ms]
            profile.reservations = [*held, room][-MAX_RESERVATIONS:]
        count_day(profile, outcome.decided_ms, "sends", 1.0)
        work.signal(outcome.person, SENT, outcome.decided_ms, 0.0, CHANNELS.index(channel))


def _context(work: Work, person: str, now_ms: int, zone: ZoneInfo, fatigue: float) -> dict[str, float]:
    """Named context of the choices; what is 0 is left out."""
    profile, features = work.profile(person), zip(NAMES, work.vector(person, now_ms).tolist(), strict=True)
    context = {name: value for name, value in features if value}
    if fatigue:
        context["fatigue"] = fatigue
    if profile.device is not None:
        context[f"device_{profile.device.value}"] = 1.0
    context.update(clock(now_ms, zone))
    return context


def _as_stranger(case: Case) -> Case:
    """The same case, where variants and texts read of the person what they would of somebody unknown."""
    stranger = UserView(case.person, Profile(), case.now_ms, 0.0, lambda: NEUTRAL)
    return replace(case, env=environment(case.plan, case.env["event"], stranger, case.now_ms))


def _cancel(outcome: Outcome, by: Mark | None) -> None:
    """Say what ended the wait; None: its campaign is configured no more."""
    outcome.reasons = ["cancelled"]
    outcome.cancelled_by = None if by is None else by.message_id
    outcome.because = because.cancelled(outcome.plan, by)
