"""What every source does, whatever is behind it."""

from __future__ import annotations

import threading
import time

import pytest

from streamml.errors import FatalError, Fenced, OffsetOutOfRange, SourceUnavailable
from streamml.ports.source import RawRecord, TopicPartition
from tests.conformance.grounds import Ground, joined, until


class SourceBehaviours:
    """Subclasses give the fixture ``empty_ground`` a value."""

    @pytest.fixture
    def empty_ground(self) -> Ground:
        raise NotImplementedError

    @pytest.fixture
    def ground(self, empty_ground: Ground) -> Ground:
        """With a topic of two partitions."""
        empty_ground.create(empty_ground.topic, 2)
        return empty_ground

    def places(self, ground: Ground) -> list[TopicPartition]:
        return [TopicPartition(ground.topic, 0), TopicPartition(ground.topic, 1)]

    def fill(self, ground: Ground, count: int, partition: int = 0, first: int = 0) -> list[bytes]:
        values = [f"{partition}/{number}".encode() for number in range(first, first + count)]
        for value in values:
            ground.append(RawRecord(None, value, [], 1000), partition)
        return values

    # -- joining

    def test_partitions_are_assigned_inside_of_poll(self, ground: Ground) -> None:
        with joined(ground.source()) as member:
            assert member.heard == []
            until(lambda: len(member.owned) == 2, member)
            assert member.starts() == dict.fromkeys(self.places(ground), 0)

    def test_d1_earliest_begins_at_the_first_record_and_commits_that_before_reading(self, ground: Ground) -> None:
        """D1.3."""
        values = self.fill(ground, 3)
        ground.delete_before(1, 0)
        with joined(ground.source(start="earliest")) as member:
            assert member.source.committed() == {self.places(ground)[0]: 1, self.places(ground)[1]: 0}
            until(lambda: len(member.values()) == 2, member)
            assert member.values() == values[1:]

    def test_d1_latest_begins_at_the_end_and_commits_that_before_reading(self, ground: Ground) -> None:
        """D1.3."""
        self.fill(ground, 3)
        with joined(ground.source(start="latest")) as member:
            assert member.source.committed() == {self.places(ground)[0]: 3, self.places(ground)[1]: 0}
            later = self.fill(ground, 2, first=3)
            until(lambda: len(member.values()) == 2, member)
            assert member.values() == later

    def test_d1_a_partition_that_came_later_is_read_from_its_first_record(self, ground: Ground) -> None:
        """D1.4."""
        with joined(ground.source(start="latest")) as member:
            until(lambda: len(member.owned) == 2, member)
            ground.add_partition()
            values = self.fill(ground, 2, partition=2)
            until(lambda: len(member.values()) == 2, member)
            assert member.values() == values

    def test_a_missing_topic_is_fatal(self, empty_ground: Ground) -> None:
        source = empty_ground.source(topics=["nowhere"])
        with pytest.raises(FatalError, match="nowhere"), joined(source):
            pass

    # -- reading

    def test_records_arrive_as_they_are(self, ground: Ground) -> None:
        records = [
            RawRecord(b"key", b"value", [("a", b"1"), ("b", None), ("a", b"2")], 1_700_000_000_123),
            RawRecord(None, None, [], 5),
            RawRecord(b"", b"", [], 6),
            RawRecord(b"\xff", b"\x00\xff", [], 7),
        ]
        for record in records:
            ground.append(record, 1)
        with joined(ground.source()) as member:
            until(lambda: len(member.values()) == 4, member)
        whole, sizes = [], 0
        for run in member.runs:
            assert run.partition == self.places(ground)[1]
            assert run.keys is not None
            assert run.headers is not None
            whole += [run.records[index] for index in range(len(run))]
            assert [(one.key, one.value, one.headers, one.timestamp) for one in whole[-len(run) :]] == list(
                zip(run.keys, run.values, run.headers, run.timestamps.tolist(), strict=True)
            )
            sizes += run.size_bytes
        assert [(one.key, one.value, one.headers, one.timestamp) for one in whole] == [
            (one.key, one.value, one.headers, one.timestamp) for one in records
        ]
        assert sizes == len(b"keyvalue\xff\x00\xff")
        assert member.where() == [(1, 0), (1, 1), (1, 2), (1, 3)]

    def test_columns_that_nobody_reads_are_left_out_and_dead_letters_still_have_them(self, ground: Ground) -> None:
        ground.append(RawRecord(b"key", b"value", [("a", b"1")], 7), 0)
        with joined(ground.source(keys=False, headers=False)) as member:
            until(lambda: member.runs, member)
            run = member.runs[0]
            assert run.keys is None
            assert run.headers is None
            assert (run.records[0].key, run.records[0].headers) == (b"key", [("a", b"1")])

    def test_one_poll_brings_at_most_max_rows_and_nothing_is_left_behind(self, ground: Ground) -> None:
        self.fill(ground, 20)
        self.fill(ground, 20, partition=1)
        with joined(ground.source()) as member:
            end = time.monotonic() + 30
            while len(member.values()) < 40 and time.monotonic() < end:
                assert sum(map(len, member.poll(max_rows=7))) <= 7
        assert sorted(member.where()) == [(partition, offset) for partition in (0, 1) for offset in range(20)]
        for partition in (0, 1):
            mine = [offset for number, offset in member.where() if number == partition]
            assert mine == sorted(mine)

    def test_poll_waits_for_the_first_record_and_no_longer_than_asked(self, ground: Ground) -> None:
        with joined(ground.source()) as member:
            until(lambda: len(member.owned) == 2, member)
            started = time.monotonic()
            assert member.poll(timeout_s=0.3) == []
            assert 0.25 <= time.monotonic() - started < 5
            timer = threading.Timer(0.3, self.fill, [ground, 1])
            timer.start()
            started = time.monotonic()
            until(member.values, member)
            member.runs.clear()
            timer.join()
            timer = threading.Timer(0.3, self.fill, [ground, 1])
            timer.start()
            assert len(member.poll(timeout_s=20)) == 1
            assert time.monotonic() - started < 15
            timer.join()

    def test_an_offset_below_retention_stops_the_worker(self, ground: Ground) -> None:
        """D7.2."""
        self.fill(ground, 5)
        with joined(ground.source()) as member:
            until(lambda: len(member.owned) == 2, member)
            member.source.commit({self.places(ground)[0]: 1}, wait=True)
        ground.delete_before(3, 0)
        with (
            joined(ground.source()) as member,
            pytest.raises(OffsetOutOfRange, match="offset"),
        ):
            until(member.values, member)

    # -- pausing

    def test_b2_a_pause_stops_delivery_and_resume_goes_on_with_the_next_record(self, ground: Ground) -> None:
        """B2.4."""
        first = self.fill(ground, 3)
        with joined(ground.source()) as member:
            until(lambda: len(member.values()) == 3, member)
            member.source.pause()
            later = self.fill(ground, 3, first=3)
            assert [member.poll() for _ in range(5)] == [[]] * 5
            member.source.resume()
            until(lambda: len(member.values()) == 6, member)
            assert member.values() == first + later

    def test_b2_a_pause_holds_for_partitions_that_are_assigned_later(self, ground: Ground) -> None:
        """B2.4."""
        values = self.fill(ground, 3)
        with joined(ground.source()) as member:
            member.source.pause()
            until(lambda: len(member.owned) == 2, member)
            assert [member.poll() for _ in range(5)] == [[]] * 5
            member.source.resume()
            until(lambda: len(member.values()) == 3, member)
            assert member.values() == values

    # -- committing

    @pytest.mark.parametrize("wait", [True, False])
    def test_a_committed_position_is_where_the_next_member_begins(self, ground: Ground, wait: bool) -> None:
        values = self.fill(ground, 4)
        place = self.places(ground)[0]
        with joined(ground.source()) as member:
            until(lambda: len(member.values()) == 4, member)
            member.source.commit({place: 3}, wait=wait)
            until(lambda: wait or member.source.committed()[place] == 3, member)
            assert member.source.committed()[place] == 3
        with joined(ground.source()) as member:
            until(member.values, member)
            assert member.values() == values[3:]

    def test_without_a_commit_the_next_member_reads_again(self, ground: Ground) -> None:
        values = self.fill(ground, 2)
        for _ in range(2):
            with joined(ground.source()) as member:
                until(lambda: len(member.values()) == 2, member)
                assert member.values() == values

    def test_committed_and_watermarks_are_known_without_joining(self, ground: Ground) -> None:
        self.fill(ground, 4)
        ground.delete_before(1, 0)
        probe = ground.source()
        assert probe.committed() == {}
        assert probe.watermarks() == {self.places(ground)[0]: (1, 4), self.places(ground)[1]: (0, 0)}
        with joined(ground.source()):
            assert probe.committed() == {self.places(ground)[0]: 1, self.places(ground)[1]: 0}
        probe.close()

    # -- several members

    def test_d5_a_second_member_gets_its_share_from_where_the_first_one_says(self, ground: Ground) -> None:
        """D5.2."""
        for partition in (0, 1):
            self.fill(ground, 4, partition=partition)
        with joined(ground.source()) as first:
            until(lambda: len(first.values()) == 8, first)
            first.answer = lambda partitions: dict.fromkeys(partitions, 3)
            with joined(ground.source()) as second:
                until(lambda: second.owned and len(first.owned) == 1, first, second)
                until(second.values, first, second)
                assert first.owned | second.owned == set(self.places(ground))
                assert first.told("revoking") == second.owned
                assert second.starts() == dict.fromkeys(second.owned, 3)
                assert [offset for _, offset in second.where()] == [3]

    def test_closing_commits_what_the_listener_says_and_others_go_on(self, ground: Ground) -> None:
        self.fill(ground, 4)
        with joined(ground.source()) as member:
            until(lambda: len(member.values()) == 4, member)
            member.answer = lambda partitions: {where: 2 for where in partitions if where.partition == 0}
        assert member.told("revoking") == set(self.places(ground))
        with joined(ground.source()) as member:
            until(member.values, member)
            assert member.starts()[self.places(ground)[0]] == 2

    def test_d6_a_member_that_lost_its_partitions_hears_so_and_commits_nothing(self, ground: Ground) -> None:
        """D6.2."""
        self.fill(ground, 4)
        with joined(ground.source()) as slow, joined(ground.source()) as quick:
            until(lambda: len(slow.owned) == len(quick.owned) == 1, slow, quick)
            place = next(iter(slow.owned))
            ground.expel(slow, quick)
            with pytest.raises(SourceUnavailable):
                slow.source.commit({place: 4}, wait=True)
            assert quick.source.committed()[place] == 0
            until(lambda: slow.told("lost"), slow, quick)
            assert slow.told("lost") == {place}
            assert place not in slow.told("revoking")
            until(lambda: len(slow.owned) == len(quick.owned) == 1, slow, quick)

    def test_a_broker_does_not_ask_whose_partition_a_member_commits(self, ground: Ground) -> None:
        self.fill(ground, 4)
        with joined(ground.source()) as first, joined(ground.source()) as second:
            until(lambda: len(first.owned) == len(second.owned) == 1, first, second)
            (place,) = second.owned
            first.source.commit({place: 1}, wait=True)
            assert second.source.committed()[place] == 1

    def test_the_second_owner_of_an_identity_fences_the_first(self, ground: Ground) -> None:
        """D6.3."""
        with joined(ground.source(identity="one")) as first:
            until(lambda: len(first.owned) == 2, first)
            with joined(ground.source(identity="one")) as second:
                until(lambda: len(second.owned) == 2, second)
                with pytest.raises((Fenced, SourceUnavailable)):
                    first.source.commit({self.places(ground)[0]: 1}, wait=True)
                with pytest.raises(Fenced):
                    until(lambda: False, first)
                assert second.source.committed()[self.places(ground)[0]] == 0

    # -- a broker that is away

    def test_an_outage_passes_and_nothing_is_lost(self, ground: Ground) -> None:
        values = self.fill(ground, 2)
        with joined(ground.source()) as member:
            until(lambda: len(member.values()) == 2, member)
            with ground.outage():
                assert [member.poll() for _ in range(5)] == [[]] * 5
            values += self.fill(ground, 2, first=2)
            until(lambda: len(member.values()) == 4, member)
            assert member.values() == values
