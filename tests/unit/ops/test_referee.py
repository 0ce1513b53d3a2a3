"""Plant each kind of mistake; the referee has to see it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamml.ops.referee import Place, Referee, Verdict, id_of, place_of


def run(*, mistake: Callable[[Referee], object] = lambda referee: None, skip: int = -1) -> Verdict:
    """Ten good events and one of poison in partition 0, each ended as it should be but ``skip``."""
    referee = Referee(lambda event, value: value["score"] == event)
    for offset in range(10):
        referee.produced(Place(0, offset), offset)
    referee.produced(Place(0, 10), None)
    for offset in range(10):
        if offset != skip:
            referee.predicted(f"topic/0/{offset}", 0, {"score": offset})
    referee.dead_lettered("topic/0/10")
    mistake(referee)
    return referee.verdict()


def test_a_clean_run() -> None:
    assert run() == Verdict(
        produced=11, poison=1, predicted=10, dead_letters=1, lost=0, duplicated=0, wrong=0, out_of_order=0
    )


def test_a_lost_record() -> None:
    assert run(skip=4).lost == 1


def test_a_duplicate_is_no_disorder() -> None:
    verdict = run(mistake=lambda referee: referee.predicted("topic/0/3", 0, {"score": 3}))
    assert (verdict.duplicated, verdict.out_of_order, verdict.wrong) == (1, 0, 0)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda referee: referee.predicted("topic/0/4", 0, {"score": 5}),
        lambda referee: referee.predicted("topic/0/99", 0, {"score": 4}),
        lambda referee: referee.dead_lettered("topic/0/4"),
    ],
    ids=["other content", "no such record", "good event among the dead letters"],
)
def test_a_wrong_answer(mistake: Callable[[Referee], object]) -> None:
    assert run(mistake=mistake, skip=4).wrong == 1


def test_poison_that_got_a_prediction_is_wrong() -> None:
    assert run(mistake=lambda referee: referee.predicted("topic/0/10", 0, {"score": 1})).wrong == 1


def test_a_record_that_was_overtaken() -> None:
    verdict = run(skip=4, mistake=lambda referee: referee.predicted("topic/0/4", 0, {"score": 4}))
    assert (verdict.out_of_order, verdict.lost) == (1, 0)


def test_a_prediction_may_arrive_before_the_producer_hears_of_its_record() -> None:
    referee = Referee(lambda event, value: True)
    referee.predicted("topic/0/0", 0, {})
    referee.produced(Place(0, 0), 0)
    assert referee.verdict().wrong == 0


def test_ids() -> None:
    assert place_of("with/slashes/3/17") == Place(3, 17)
    assert id_of([("streamml", b"1;t/0/5;m@1;0;")]) == "t/0/5"
    with pytest.raises(ValueError, match="no header"):
        id_of(None)


def test_a_duplicate_of_other_content_is_wrong() -> None:
    verdict = run(mistake=lambda referee: referee.predicted("topic/0/3", 0, {"score": 4}))
    assert (verdict.duplicated, verdict.wrong) == (1, 1)


def test_a_dead_letter_of_no_record_is_wrong() -> None:
    assert run(mistake=lambda referee: referee.dead_lettered("topic/0/99")).wrong == 1


def test_the_remarks_say_which() -> None:
    referee = Referee(lambda event, value: value["score"] == event)
    for offset in range(4):
        referee.produced(Place(0, offset), offset)
    referee.predicted("topic/0/2", 0, {"score": 2})
    referee.predicted("topic/0/1", 0, {"score": 7})
    referee.dead_lettered("topic/0/3")
    referee.predicted("topic/0/9", 0, {"score": 9})
    remarks = "\n".join(referee.remarks())
    for part in (
        "topic/0/1 came behind 2",
        "event 1, has",
        "offset=0) has no",
        "offset=3) has a dead",
        "offset=9) is no",
    ):
        assert part in remarks


def test_a_correction_takes_the_place_of_what_was_wrong() -> None:
    def corrected(referee: Referee) -> None:
        referee.predicted("topic/0/4", 0, {"score": 5})
        referee.predicted("topic/0/4", 0, {"score": 4}, revision=2)
        referee.predicted("topic/0/4", 0, {"score": 6}, revision=1)

    verdict = run(mistake=corrected, skip=4)
    assert (verdict.wrong, verdict.corrected, verdict.duplicated, verdict.out_of_order) == (0, 1, 0, 1)  # it came late


def test_a_wrong_correction_of_what_was_right() -> None:
    verdict = run(mistake=lambda referee: referee.predicted("topic/0/4", 0, {"score": 5}, revision=1))
    assert (verdict.wrong, verdict.corrected, verdict.predicted) == (1, 1, 10)


def test_a_correction_that_comes_twice() -> None:
    def twice(referee: Referee) -> None:
        for _ in range(2):
            referee.predicted("topic/0/4", 0, {"score": 4}, revision=1)

    assert run(mistake=twice).duplicated == 1


def test_a_prediction_that_is_heard_of_before_its_record_leaves_nothing_open() -> None:
    referee = Referee(lambda event, value: True)
    referee.predicted("topic/0/0", 0, {})
    referee.produced(Place(0, 0), 0)
    assert referee.open == 0
    assert referee.verdict() == Verdict(1, 0, 1, 0, 0, 0, 0, 0)


def test_what_cannot_be_told_yet_is_asked_again() -> None:
    known: set[int] = set()
    referee = Referee(lambda event, value: value["score"] == event if event in known else None)
    for offset in range(3):
        referee.produced(Place(0, offset), offset)
        referee.predicted(f"topic/0/{offset}", 0, {"score": 1})
    assert (referee.verdict(under_way=True).wrong, referee.undecided) == (0, 3)
    assert referee.verdict().wrong == 3
    known.update(range(2))
    assert (referee.verdict(under_way=True).wrong, referee.undecided) == (1, 1)
    known.add(2)
    assert (referee.verdict().wrong, referee.undecided) == (2, 0)
