"""The command line of the features app."""

from __future__ import annotations

from datetime import timedelta

import pytest

from streamml.errors import ConfigError
from topologies.flight_delay import features_app
from topologies.flight_delay.features_options import read_options


def problems(*arguments: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as told:
        read_options(arguments)
    return told.value.problems


def test_what_is_given_is_what_holds() -> None:
    options, settings = read_options(
        ["--brokers", "b:1", "--topic", "t", "--disorder", "0s", "--stuck-after", "5s", "--create-topics"]
    )
    assert settings.brokers == "b:1"
    assert (options.arrivals, options.dead_letters, options.create_topics) == ("t", "arrivals.dlq", True)
    assert (options.disorder, options.stuck_after_s) == (timedelta(0), 5.0)


@pytest.mark.parametrize(
    ("flag", "span"),
    [
        ("--disorder", "99999999999d"),
        ("--disorder", "9" * 400 + "d"),
        ("--disorder", "366d"),
        ("--disorder", "soon"),
        ("--stuck-after", "0s"),
        ("--stuck-after", "1ms"),
        ("--stuck-after", "25h"),
    ],
)
def test_a_span_out_of_bounds_is_a_problem(flag: str, span: str) -> None:
    (problem,) = problems(flag, span)
    assert problem.startswith(f"{flag}: ")


@pytest.mark.parametrize("name", ["", ".", "..", "a b/c", "ü", "x" * 250])
def test_a_name_that_no_topic_can_have_is_a_problem(name: str) -> None:
    (problem,) = problems("--topic", name)
    assert problem.startswith(f"--topic: {name!r} cannot be the name of a topic")


def test_all_problems_are_told_at_once_and_nothing_is_begun(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["--topic", "a/b", "--dead-letters", "a/b", "--group", ""]
    spans = ["--disorder=-1s", "--stuck-after", "0s"]
    assert features_app.main([*names, *spans, "--create-topics"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 6
    assert all(line.startswith("Error: --") for line in said)
