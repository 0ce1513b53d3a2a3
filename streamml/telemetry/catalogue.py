"""Every metric, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Args:
        name: without the suffix that its kind adds; units are in the name.
        kind: how its values are read.
        help: what it says, in one sentence.
        labels: names of its labels.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


CONSUMED: Final = Metric("streamml_consumed_records", "counter", "Records taken from the input topics.")
PREDICTIONS: Final = Metric("streamml_predictions", "counter", "Predictions that the broker acknowledged.")
FILTERED: Final = Metric(
    "streamml_filtered_rows", "counter", "Rows dropped on purpose: filters, tombstones, no children."
)
DEAD_LETTERS: Final = Metric(
    "streamml_dead_letters", "counter", "Dead letters that the broker acknowledged.", ("step", "error")
)
FEATURES: Final = Metric(
    "streamml_feature_rows",
    "counter",
    "Predictions by feature set and state of the value.",
    ("set", "version", "state"),
)
NEAR_ENTITIES: Final = Metric(
    "streamml_near_cache_entities",
    "counter",
    "Entities looked up in a near cache, by whether they were there: hit or miss.",
    ("set", "result"),
)
NEAR_CHANGES: Final = Metric(
    "streamml_near_cache_changes", "counter", "Values that a near cache forgot as Redis told of a change.", ("set",)
)
NEAR_LOSSES: Final = Metric(
    "streamml_near_cache_losses",
    "counter",
    "How often a near cache forgot everything: its connection was lost, or the database flushed.",
    ("set",),
)
NEAR_BYTES: Final = Metric("streamml_near_cache_bytes", "gauge", "Bytes that a near cache takes.", ("set",))
NEAR_STALENESS: Final = Metric(
    "streamml_near_cache_staleness_seconds",
    "gauge",
    "What the latest lookup used from a near cache was the newest at most so long before.",
    ("set",),
)
LATE: Final = Metric("streamml_late_predictions", "counter", "Predictions beyond the latency budget.")
RETRIES: Final = Metric("streamml_stage_retries", "counter", "Tries of a stage put off as something did not answer.")
STALE_RESULTS: Final = Metric(
    "streamml_abandoned_rows", "counter", "Rows dropped as their partition went; the next owner has them."
)
BATCHES: Final = Metric("streamml_batches", "counter", "Batches dispatched, by stage and reason.", ("stage", "reason"))
STEP_ROWS: Final = Metric("streamml_step_rows", "counter", "Rows that a step worked on.", ("step",))
STEP_SECONDS: Final = Metric("streamml_step_seconds", "counter", "Seconds that a step took.", ("step",))
PAUSED: Final = Metric("streamml_paused", "gauge", "1 while the group is paused, 0 while it takes records.")
BREAKERS: Final = Metric(
    "streamml_dependency_down",
    "gauge",
    "1 while the breaker before a dependency is open: it did not answer.",
    ("dependency",),
)
BREAKER_OPENINGS: Final = Metric(
    "streamml_dependency_outages", "counter", "How often that breaker has opened.", ("dependency",)
)
TOO_LARGE: Final = Metric(
    "streamml_too_large_batches", "counter", "Calls of a model that did not fit into memory and were halved.", ("step",)
)
IN_FLIGHT: Final = Metric("streamml_in_flight_records", "gauge", "Records polled and not settled.")
IN_FLIGHT_BYTES: Final = Metric("streamml_in_flight_bytes", "gauge", "Bytes of their keys and values.")
QUEUED: Final = Metric("streamml_queued_rows", "gauge", "Rows that wait for a stage.", ("stage",))
LATENCY: Final = Metric(
    "streamml_latency_seconds", "histogram", "Record time to acknowledgement of the prediction by the broker."
)

CATALOGUE: Final = (
    CONSUMED,
    PREDICTIONS,
    FILTERED,
    DEAD_LETTERS,
    FEATURES,
    NEAR_ENTITIES,
    NEAR_CHANGES,
    NEAR_LOSSES,
    NEAR_BYTES,
    NEAR_STALENESS,
    LATE,
    RETRIES,
    STALE_RESULTS,
    BATCHES,
    STEP_ROWS,
    STEP_SECONDS,
    PAUSED,
    TOO_LARGE,
    BREAKERS,
    BREAKER_OPENINGS,
    IN_FLIGHT,
    IN_FLIGHT_BYTES,
    QUEUED,
    LATENCY,
)
