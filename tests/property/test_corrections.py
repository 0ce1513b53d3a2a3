"""Whatever way live predictions and corrections come to a consumer, it ends with the right ones."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import duckdb
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from streamml.ops.replay.latest import CHOOSE, id_said

CONSUMER = Path(__file__).parents[2] / "docs" / "examples" / "consumers" / "latest.py"


def consumers() -> ModuleType:
    """The module of the reference consumers."""
    spec = importlib.util.spec_from_file_location("reference_consumers", CONSUMER)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


LATEST = consumers()
# Of each source record: its key and its time. Times collide, and run backwards.
EVENTS = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 4)), min_size=1, max_size=8)


@st.composite
def topics(draw: st.DrawFn) -> tuple[list[tuple[bytes, int]], list[tuple[int, int]]]:
    """Events, and the prediction topic as (number of the event, revision) in any order, with duplicates."""
    events = draw(EVENTS)
    revisions = [draw(st.sets(st.integers(1, 3))) | {0} for _ in events]
    records = [(number, revision) for number, each in enumerate(revisions) for revision in each]
    again = draw(st.lists(st.sampled_from(records), max_size=4))
    return events, list(draw(st.permutations([*records, *again])))


@given(topics())
def test_d3_any_interleaving_ends_with_the_right_value(
    found: tuple[list[tuple[bytes, int]], list[tuple[int, int]]],
) -> None:
    """D3: by id the highest revision; by key the newest by source time, in its highest revision."""
    events, topic = found
    by_id, by_key = LATEST.HighestRevision(), LATEST.LatestPerKey()
    for number, revision in topic:
        key, time = events[number]
        header = ("streamml", f"1;T/x/0/{number};m@1;{revision};".encode())
        one = LATEST.prediction(key, b"%d.%d" % (number, revision), time, [("trace", b""), header])
        by_id.take(one)
        by_key.take(one)
    highest = {number: max(revision for other, revision in topic if other == number) for number in range(len(events))}
    assert {id: one.value for id, one in by_id.kept.items()} == {
        f"T/x/0/{number}": b"%d.%d" % (number, revision) for number, revision in highest.items()
    }
    for key in {key for key, _ in events}:
        newest = max((time, number) for number, (other, time) in enumerate(events) if other == key)[1]
        assert by_key.kept[key].value == b"%d.%d" % (newest, highest[newest])


@given(EVENTS, st.data())
def test_of_a_run_only_the_newest_of_each_key_is_chosen_for_consumers_that_keep_a_keys_last_record(
    events: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    """D3.11: what stands last of a key is the newest by source time, or what the live topic had."""
    run = sorted(data.draw(st.sets(st.sampled_from(range(len(events))))))
    live = [number for number in range(len(events)) if number not in run or data.draw(st.booleans())]
    chosen = _chosen(events, live, run)
    last = {events[number][0]: (number, False) for number in live}
    last |= {events[number][0]: (number, True) for number in chosen}
    assert len({events[number][0] for number in chosen}) == len(chosen)
    for key in {key for key, _ in events}:
        there = [number for number in (*live, *run) if events[number][0] == key]
        # Of one time, what came first to the topic is the older; what is new there comes last.
        newest = max(there, key=lambda number: (events[number][1], number not in live, number), default=None)
        if newest in run:
            assert last[key] == (newest, True)
        elif newest is not None:
            assert not last[key][1]


def _chosen(events: Sequence[tuple[bytes, int]], live: Sequence[int], run: Sequence[int]) -> list[int]:
    """Numbers of the events whose rows `CHOOSE` takes; ``at_offset`` of the run is that number."""
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE spans (prefix VARCHAR, topic_no TINYINT, part INTEGER, first BIGINT, behind BIGINT)"
        )
        connection.execute("INSERT INTO spans VALUES ('T/x/0/', 0, 0, 0, 100)")
        arrivals = pa.table(
            {
                "key": pa.array([events[number][0] for number in live], pa.binary()),
                "id": pa.array([f"T/x/0/{number}" for number in live], pa.string()),
                "ts": pa.array([events[number][1] for number in live], pa.int64()),
                "at_offset": pa.array(range(len(live)), pa.int64()),
            }
        )
        pairs = pa.table(
            {
                "topic_no": pa.array([0] * len(run), pa.int8()),
                "part": pa.array([0] * len(run), pa.int32()),
                "place": pa.array(run, pa.int64()),
                "child": pa.array([-1] * len(run), pa.int32()),
                "at_partition": pa.array([0] * len(run), pa.int32()),
                "at_offset": pa.array(run, pa.int64()),
                "key": pa.array([events[number][0] for number in run], pa.binary()),
                "ts": pa.array([events[number][1] for number in run], pa.int64()),
            }
        )
        connection.register("arrivals", arrivals)
        connection.register("pairs", pairs)
        connection.execute(CHOOSE)
        return [
            at for _, at in connection.execute("SELECT id, at_offset FROM newest_places ORDER BY at_offset").fetchall()
        ]


def test_the_id_of_a_prediction_is_in_its_header_or_its_value() -> None:
    assert [id_said("1;T/0/1;m;0;", None), id_said(None, "T/0/2"), id_said("odd", "x"), id_said(None, None)] == [
        "T/0/1",
        "T/0/2",
        "",
        "",
    ]
