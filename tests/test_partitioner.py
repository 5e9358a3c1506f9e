from __future__ import annotations

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from decisioning.partitioner import murmur2, partition_of


@pytest.mark.parametrize(
    ("data", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_kafkas_own_test_vectors(data: bytes, signed: int) -> None:
    """The vectors of Kafka's UtilsTest, written as the signed integers they are in Java."""
    assert murmur2(data) == signed & 0xFFFFFFFF


@given(st.text(max_size=80), st.integers(1, 64))
def test_a_person_goes_where_a_producer_puts_the_key(person: str, partitions: int) -> None:
    """The default partitioner of a Kafka client agrees for any key and any number of partitions."""
    numbers = list(range(partitions))
    assert partition_of(person, partitions) == DefaultPartitioner()(person.encode(), numbers, numbers)
