"""What is left of a person after `delete`: a mark, and nothing else, under none of their ids, in no partition."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decisioning import profile as profiles
from decisioning.partitioner import partition_of
from decisioning.profile import Profile
from features.rows import ERASED
from tests.play import Played, at, config, identify, ms, play, play_raw, track
from tests.test_engine_laws import NOW_MS, Cluster
from tests.test_identity import alias, anonymous


def delete(clock: str, message_id: str = "gone", user: str | None = "u1", **more: Any) -> dict[str, Any]:
    """A request to be forgotten."""
    body = {"messageId": message_id, "type": "delete", "timestamp": at(clock), "userId": user} | more
    return {key: value for key, value in body.items() if value is not None}


def held(played: Played, person: str) -> Profile:
    """What is remembered under an id."""
    return profiles.decode(played.memory.profiles.get(person))


def test_the_forwarding_addresses_of_an_erased_person_are_forgotten() -> None:
    """A device that was merged names nobody afterwards; its old events stay out, its new ones are a stranger's."""
    events = [
        identify("09:00", "i", anonymousId="anon"),
        delete("10:00"),
        anonymous("09:59", "old", "anon", receivedAt=at("10:01")),
        anonymous("10:05", "new", "anon"),
    ]
    played = play(events)
    assert held(played, "anon").moved_to is None
    assert held(played, "u1") == Profile(erased_ms=ms("10:00"))
    assert [entry["user_id"] for entry in played.log] == ["u1", "anon"]
    assert played.counts["erased_events_total",] == 1


@pytest.mark.parametrize("named", [{"user": "anon"}, {"user": None, "anonymousId": "anon"}])
def test_any_of_the_ids_erases_the_person(named: dict[str, Any]) -> None:
    """A request under an id that was merged long ago is about whom it belongs to; it makes nobody of that id."""
    events = [identify("09:00", "i", anonymousId="anon"), track("09:30", "t1"), delete("09:40", **named)]
    played = play([*events, identify("11:00", "again", anonymousId="anon"), anonymous("11:10", "t2", "anon")])
    assert [(entry["user_id"], entry["reasons"]) for entry in played.log[:2]] == [("u1", ["erased"])] * 2
    assert [(d["user_id"], d["trigger"]["message_id"]) for d in played.decisions] == [("u1", "t2")]


def test_a_device_that_belongs_to_somebody_else_by_now_stays_theirs() -> None:
    """The tablet went from u1 to u2: erasing u1 leaves it u2's, erasing u2 does not."""
    events = [
        identify("09:00", "i2", "u2"),
        identify("09:10", "i3", anonymousId="tablet"),
        identify("09:20", "i4", "u2", anonymousId="tablet"),
    ]
    assert held(play([*events, delete("10:00")]), "tablet").moved_to == "u2"
    assert held(play([*events, delete("10:00", user="u2")]), "tablet") == Profile(erased_ms=ms("10:00"))


def test_old_events_that_are_sent_again_bring_nobody_back() -> None:
    """Events from before: late, more than 400 days old by their own word, or of an id that was merged since."""
    events = [
        delete("10:00"),
        track("09:00", "late", receivedAt=at("11:00")),
        track("09:00", "ancient", receivedAt=at("11:00")) | {"timestamp": "2020-01-01T00:00:00Z"},
        alias("11:30", "a", "u1", "u2"),
        track("09:30", "later", receivedAt=at("12:00")),
    ]
    played = play(events)
    assert played.counts["erased_events_total",] == 3
    assert [entry["user_id"] for entry in played.log] == ["u1"]
    assert held(played, "u2") == Profile(aliases=["u1"])


def test_what_a_mail_reader_reports_of_old_messages_brings_nobody_back() -> None:
    """An open of a message from before the erasure says nothing of anybody; one of a later message counts."""
    setup = config(campaign={"cooldown": "1h"})
    before = play([track("09:00", "t1"), delete("10:00")], until="10:30", setup=setup)
    old = {"decision_id": before.decisions[0]["decision_id"]}
    opened = track("10:40", "o1", "Email Opened", properties=old)
    after = play_raw([opened], until="10:50", setup=setup, memory=before.memory)
    assert held(after, "u1") == Profile(erased_ms=ms("10:00"))
    begun = [identify("11:00", "i"), track("11:01", "t2")]
    again = play_raw(begun, until="11:45", setup=setup, memory=after.memory)
    new = {"decision_id": again.decisions[0]["decision_id"]}
    final = play_raw([track("11:50", "o2", "Email Opened", properties=new)], setup=setup, memory=again.memory)
    assert profiles.counts(held(final, "u1"), ms("12:00"))["opens_total"] == 1


def test_a_complaint_about_an_old_message_is_heard() -> None:
    """It only ever keeps messages from being sent."""
    spam = track("10:40", "s1", "Email Marked as Spam", properties={"decision_id": "from-before"})
    assert held(play([delete("10:00"), spam]), "u1").suppressed == {"email": {"complained": ms("10:40")}}


def test_a_new_life_may_begin_in_the_batch_of_the_erasure() -> None:
    """What comes after a delete counts though it is read together with it; what came before does not."""
    lines = [
        orjson.dumps(event)
        for event in (
            identify("09:00", "i"),
            track("09:30", "v1", "Product Viewed"),
            delete("10:00"),
            track("09:45", "v2", "Product Viewed"),
            track("+1d 10:03", "v3", "Product Viewed"),
        )
    ]
    one, each = Cluster(1), Cluster(1)
    one.step(0, lines)
    for line in lines:
        each.step(0, [line])
    assert one.memories[0].profiles == each.memories[0].profiles
    assert one.memories[0].rows.gather(["u1"]).tobytes() == each.memories[0].rows.gather(["u1"]).tobytes()
    assert one.memories[0].rows.gather(["u1"])["values"].any()


def test_a_merge_that_is_under_way_when_its_person_is_erased_is_not_taken_in() -> None:
    """What the device held arrives after the erasure: its timer ends as erased, and its home is told to forget."""
    home = partition_of("u1", 4)
    device = next(name for name in map("anon{}".format, range(99)) if partition_of(name, 4) != home)
    cluster = Cluster(4)
    trigger = anonymous("09:00", "t1", device, properties={"email": "ann@example.com"})
    cluster.step(partition_of(device, 4), [orjson.dumps(trigger)])
    cluster.step(home, [orjson.dumps(identify("09:10", "i", anonymousId=device))])
    cluster.step(home, [orjson.dumps(delete("09:20"))])
    cluster.settle()
    assert [(entry["user_id"], entry["reasons"]) for entry in cluster.log] == [("u1", ["erased"])] * 2
    for memory in cluster.memories:
        for profile in memory.profiles.values():
            assert profiles.decode(profile) == Profile(erased_ms=NOW_MS)


@pytest.mark.parametrize("partitions", [1, 4])
def test_an_id_beyond_those_that_are_remembered_brings_nobody_back(partitions: int) -> None:
    """Of a hundred devices the first were not remembered: their next event makes their home forget whose they were."""
    devices = [f"d{number}" for number in range(100)]
    cluster = Cluster(partitions)

    def live(*events: dict[str, Any]) -> None:
        for event in events:
            who = event.get("userId") or event["anonymousId"]
            cluster.step(partition_of(who, partitions), [orjson.dumps(event)])
            cluster.settle()

    live(*(identify("09:00", f"i{one}", anonymousId=one) for one in devices), delete("09:10"))
    live(*(anonymous("+1d 10:01", f"v{one}", one, "Product Viewed") for one in devices[:2]))
    profile = profiles.decode(cluster.memories[partition_of("u1", partitions)].profiles["u1"])
    assert profile == Profile(erased_ms=NOW_MS)
    live(identify("+1d 10:02", "anew", anonymousId="d1"), identify("+1d 10:02", "third", anonymousId="d2"))
    live(*(anonymous("+1d 10:03", f"t{one}", one) for one in devices[:3]))
    known = {person: data for memory in cluster.memories for person, data in memory.profiles.items()}
    assert [profiles.decode(known[one]).moved_to for one in devices[:3]] == [None, "u1", "u1"]
    assert [one.first.message_id for one in profiles.decode(known["u1"]).pending] == ["td1"]


PLANTED = ("ann@example.com", "+49 170 1234567", "token-of-ann")
IDS = ("ann-1", "ann-2", "ann-3", "device-1", "device-2", "device-3")


@st.composite
def lives(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Events of one person under many ids, each with something personal in it, that all turn out to be one."""
    events = []
    for number in range(draw(st.integers(1, 12))):
        person, other = draw(st.sampled_from(IDS)), draw(st.sampled_from(IDS))
        ids = {"userId": person} if person.startswith("ann") else {"anonymousId": person}
        what = draw(st.sampled_from(["identify", "track", "alias", "both"]))
        event: dict[str, Any] = {"messageId": f"m{number}", "timestamp": at(f"09:{number:02d}"), **ids}
        if what == "track":
            event |= {"type": "track", "event": "Product Added", "properties": {"to": list(PLANTED)}}
        elif what == "alias":
            event |= {"type": "alias", "userId": person, "previousId": other}
        else:
            traits = dict(zip(("email", "phone", "push_token"), PLANTED, strict=True))
            event |= {"type": "identify", "traits": traits}
            if what == "both":
                event |= {"userId": draw(st.sampled_from(IDS[:3])), "anonymousId": draw(st.sampled_from(IDS[3:]))}
        events.append(event)
    united = [alias(f"09:{30 + number}", f"a{number}", other, IDS[0]) for number, other in enumerate(IDS[1:])]
    return [*events, *united]


@settings(max_examples=60)
@given(lives(), st.sampled_from(IDS), st.integers(1, 5), st.randoms(use_true_random=False))
def test_nothing_is_left_anywhere(events: list[dict[str, Any]], asks: str, partitions: int, chance: Any) -> None:
    """However many ids in whichever partitions: no address is left, and no id but as the key of its own mark."""
    cluster = Cluster(partitions)
    for event in events:
        who = event.get("userId") or event["anonymousId"]
        cluster.step(partition_of(who, partitions), [orjson.dumps(event)])
        if chance.random() < 0.7:
            cluster.settle()
    cluster.settle()
    cluster.step(partition_of(asks, partitions), [orjson.dumps(delete("10:00", user=asks))])
    cluster.settle()
    proofs = [entry for entry in cluster.log if entry["campaign"] is None]
    assert len(proofs) == 1
    for memory in cluster.memories:
        left = b"".join(memory.profiles.values())
        assert not [text for text in (*PLANTED, *IDS) if text.encode() in left]
        assert memory.next_due_ms() is None
        rows = memory.rows.gather([person for person in IDS if person in memory.rows])
        assert not rows["values"].any()
        assert not rows["zone"].any()
        assert (rows["flags"] == ERASED).all()
