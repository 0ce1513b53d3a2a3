"""Keys lie where Java's producer puts them."""

from __future__ import annotations

import pytest

from streamml.adapters.kafka.partitioner import partition_of


# From org.apache.kafka.common.utils.UtilsTest.testMurmur2.
@pytest.mark.parametrize(
    ("key", "murmur2"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_a_key_lies_where_javas_producer_puts_it(key: bytes, murmur2: int) -> None:
    for partitions in (1, 2, 7, 100, 2**31 - 1):
        assert partition_of(key, partitions) == (murmur2 & 0x7FFFFFFF) % partitions
