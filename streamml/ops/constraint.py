"""What the rates of a profile say: which step is the constraint, and what can be done about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

from streamml.compose.drain import MEMORY, PRODUCE, READ
from streamml.topology.model_steps import ModelStep
from streamml.topology.steps import FeatureLookup
from streamml.topology.topology import Topology

BASELINE: Final = "everything real"
# What is gained by less than this may be chance.
_NOTABLE: Final = 1.1


@dataclass(frozen=True, slots=True)
class Gain:
    """What it brings to make one step free; ``None`` where it could not be.

    Args:
        free: the step.
        events_per_s: median of the rounds.
        speed_up: median of its ratios to the baseline of the same round.
        share: part of the time that an event takes which the step is answerable for, 0 to 1.
    """

    free: str
    events_per_s: int | None
    speed_up: float | None
    share: float | None


def judged(rates: Mapping[str, Sequence[float]], topology: Topology) -> dict[str, Any]:
    """The rates, in rows per second by what was free and by round, as part of the result of a profile."""
    baseline = rates[BASELINE]
    gains = [_gain(name, found, baseline) for name, found in rates.items() if name != BASELINE]
    speed_ups = {one.free: one.speed_up for one in gains if one.speed_up is not None}
    steps = {name: gain for name, gain in speed_ups.items() if name != MEMORY}
    first = max(steps, key=lambda name: steps[name], default="")
    constraint = first if steps.get(first, 1.0) >= _NOTABLE else None
    return {
        "events_per_s": round(median(baseline)),
        "steps": list(map(asdict, gains)),
        "constraint": constraint,
        "advice": _advice(constraint, speed_ups, topology),
    }


def _gain(name: str, found: Sequence[float], baseline: Sequence[float]) -> Gain:
    if len(found) < len(baseline):
        return Gain(name, None, None, None)
    ratio = median(a / b for a, b in zip(found, baseline, strict=True))
    return Gain(name, round(median(found)), round(ratio, 2), round(max(0.0, 1 - 1 / ratio), 3))


def _advice(constraint: str | None, speed_ups: Mapping[str, float], topology: Topology) -> str:
    """What to do about the constraint, in a sentence or two."""
    if constraint is None:
        return (
            "No single step holds the others up: whatever is made free, the whole gains less than a tenth. "
            "More throughput comes from more workers (`streamml run --workers N`)."
        )
    if constraint == READ:
        return (
            "Reading is the constraint: look at the broker, the network and the [kafka] settings of the consumer "
            "(fetch.queue.backoff.ms, fetch.message.max.bytes), or read with more workers."
        )
    if constraint == PRODUCE:
        where = "the broker" if topology.redis_sink is None else "Redis, the broker"
        return (
            f"Writing is the constraint: look at {where}, the size of predictions, their compression and the [kafka] settings "
            "of the producer (linger.ms, batch.size)."
        )
    if constraint == "decode":
        return (
            'Decoding is the constraint: declare only the fields that are needed, keep parsing="strict" (pydantic\'s own '
            "rules cost several times as much), send smaller events, or run more workers."
        )
    if constraint == "encode":
        return (
            "Encoding is the constraint: write fewer fields, and leave validators out of the schema of predictions, which "
            "then need not be read back to be checked."
        )
    names = {step.name: step for step in topology.steps}
    # A second one of a name is called "name (2)".
    step = names.get(constraint) or names[constraint.rpartition(" (")[0]]
    if isinstance(step, FeatureLookup):
        return _advice_on_features(speed_ups.get(constraint), speed_ups.get(MEMORY))
    if isinstance(step, ModelStep):
        return (
            f"The model {constraint} is the constraint: a larger max_batch_size, more threads ([model] threads), a smaller or "
            "quantised model, a GPU, or more workers."
        )
    return (
        f"The function of the step {constraint} is the constraint: compute on whole columns with numpy instead of row by "
        "row, do less, or run more workers."
    )


def _advice_on_features(whole: float | None, remembered: float | None) -> str:
    if whole and remembered and remembered - 1 > (whole - 1) / 2:
        return (
            "Looking up features is the constraint, and most of it is asking Redis: bring Redis nearer, put sets that are read "
            "together into one FeatureLookup, or store fewer columns."
        )
    return (
        "Looking up features is the constraint, and most of it is joining what Redis answers: fewer sets and columns, "
        "or more workers."
    )
