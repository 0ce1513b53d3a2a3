"""Outcomes leave in source order within their kind, each exactly once, children with their siblings (D4)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamml.batch.outcome import Kind, Outcomes
from streamml.engine.sequencer import Sequencer
from tests.records import origin_of

Row = tuple[int, int, bool, Kind]


@st.composite
def rows_in_pieces(draw: st.DrawFn) -> list[list[Row]]:
    """Rows of up to 30 records, some exploded, dealt into pieces in a random order."""
    fan_out = draw(st.lists(st.integers(1, 3), min_size=1, max_size=30))
    kinds = st.sampled_from(list(Kind))
    rows = [(o, c, c == n - 1, draw(kinds)) for o, n in enumerate(fan_out) for c in range(n)]
    pieces: dict[int, list[Row]] = {}
    for row in rows:
        pieces.setdefault(draw(st.integers(0, 6)), []).append(row)
    return draw(st.permutations(list(pieces.values())))


def outcomes_of(rows: list[Row]) -> list[Outcomes]:
    """The rows as one block per kind."""
    blocks = []
    for kind in Kind:
        mine = [row for row in rows if row[3] is kind]
        if mine:
            ordinals, children, lasts, _ = zip(*mine, strict=True)
            blocks.append(Outcomes(kind, origin_of(list(ordinals), list(children), list(lasts))))
    return blocks


@given(rows_in_pieces())
def test_d4_order_within_a_kind_and_nothing_lost_or_doubled(pieces: list[list[Row]]) -> None:
    """D4.1, D4.2."""
    sequencer = Sequencer()
    seen: dict[Kind, list[tuple[int, int]]] = {kind: [] for kind in Kind}
    offered: set[tuple[int, int]] = set()
    everything = {(row[0], row[1]): row for piece in pieces for row in piece}
    for piece in pieces:
        offered |= {(row[0], row[1]) for row in piece}
        for block in sequencer.offer(outcomes_of(piece)):
            seen[block.kind] += zip(block.origin.ordinal.tolist(), block.origin.children.tolist(), strict=True)
        missing = set(everything) - offered
        frontier = min(missing, default=(len(everything) + 1, 0))[0]
        assert {pair for pairs in seen.values() for pair in pairs} == {
            pair for pair in everything if pair[0] < frontier
        }
    for kind, pairs in seen.items():
        assert pairs == sorted(pair for pair, row in everything.items() if row[3] is kind)
    assert sequencer.waiting == 0


@given(rows_in_pieces())
def test_d4_unordered_releases_a_record_as_soon_as_its_children_ended(pieces: list[list[Row]]) -> None:
    """D4.2, D4.3."""
    sequencer = Sequencer(ordered=False)
    offered: set[tuple[int, int]] = set()
    released: list[tuple[int, int]] = []
    everything = {(row[0], row[1]) for piece in pieces for row in piece}
    for piece in pieces:
        offered |= {(row[0], row[1]) for row in piece}
        for block in sequencer.offer(outcomes_of(piece)):
            released += zip(block.origin.ordinal.tolist(), block.origin.children.tolist(), strict=True)
        open_parents = {pair[0] for pair in everything - offered}
        assert set(released) == {pair for pair in offered if pair[0] not in open_parents}
    assert sorted(released) == sorted(everything)
