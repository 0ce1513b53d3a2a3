"""Summaries of several workers as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from streamml.telemetry.latency import LatencyHistogram

_SUMS: Final = ("consumed", "predictions", "dead_letters", "filtered", "batches", "retries")


def merged(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One summary of all; workers ran side by side, so seconds are those of the longest."""
    latency = LatencyHistogram()
    for one in summaries:
        latency.merge(one.get("latency_counts", [0] * len(latency.counts)))
    seconds = max((one["seconds"] for one in summaries), default=0.0)
    sums = {name: sum(one[name] for one in summaries) for name in _SUMS}
    return {
        # Of the group: one that was stopped left its partitions to those that went on.
        "caught_up": any(told)
        if (told := [one["caught_up"] for one in summaries if one["caught_up"] is not None])
        else None,
        "paused": next((one["paused"] for one in summaries if one["paused"]), None),
        **sums,
        "workers": len(summaries),
        "seconds": seconds,
        "events_per_s": round(sums["consumed"] / seconds) if seconds else 0,
        "latency_ms": {f"p{share}": latency.percentile(share / 100) for share in (50, 95, 99)},
        "mean_batch_rows": _mean_batch_rows(summaries),
        "dead_letters_by_error": _added(summaries, "dead_letters_by_error"),
        "flags": _added(summaries, "flags"),
    }


def _mean_batch_rows(summaries: Sequence[Mapping[str, Any]]) -> float | None:
    weighted = [(one["mean_batch_rows"], one["predictions"]) for one in summaries if one["mean_batch_rows"]]
    rows = sum(count for _, count in weighted)
    # Rows over batches, where each worker's batches are its rows over its mean.
    batches = sum(count / mean for mean, count in weighted)
    return round(rows / batches, 1) if batches else None


def _added(summaries: Sequence[Mapping[str, Any]], name: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in summaries:
        total.update(one[name])
    return dict(total)
