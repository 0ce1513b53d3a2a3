"""What the demo says of itself, as JSON: while it runs, and at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from streamml.ops.demo.faults import Fault
from streamml.ops.demo.features_app import FeaturesApp
from streamml.ops.demo.feeder import Feeder
from streamml.ops.demo.freshness import Freshness
from streamml.ops.demo.incident import Incident
from streamml.ops.demo.judge import Judge
from streamml.ops.summaries import merged

_LATELY_S: Final = 5
_PERCENTILES: Final = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Books:
    """Everything that is asked, and when the stream began (seconds since 1970).

    Args:
        quality: has ``figures()``.
        app: ``None``: nobody keeps the fast features fresh.
    """

    feeder: Feeder
    judge: Judge
    quality: Any
    freshness: Freshness
    app: FeaturesApp | None
    incident: Incident
    faults: Sequence[Fault]
    begun: float

    def snapshot(self, now: float) -> dict[str, Any]:
        """For a live view."""
        lately = [latency for moment, latency in list(self.judge.lately) if moment > now - _LATELY_S]
        verdict = self.judge.verdict(under_way=True)
        return {
            "seconds": now - self.begun,
            "sent": self.feeder.sent,
            "events": self.feeder.total,
            "rate": len(lately) / _LATELY_S,
            "lag": verdict.lost,
            "latency_ms": _named(np.percentile(lately, _PERCENTILES)) if lately else {},
            "referee": verdict.document(),
            "quality": self.quality.figures(),
            "fast_features": self.freshness.lately(now),
            "features_app": self._of_app(now),
            "recent": list(self.judge.recent),
            "faults": list(self.faults),
            "poisoning": self.feeder.poisoning,
            "incident": self.incident.told(),
        }

    def summary(self, ended: float, of_workers: list[dict[str, Any]]) -> dict[str, Any]:
        """For the end.

        Args:
            ended: when the last event did.
            of_workers: what each of them said.
        """
        verdict, seconds = self.judge.verdict(), ended - self.begun
        told = merged(of_workers)
        return {
            "consumed": verdict.produced,
            "departures": verdict.produced - verdict.poison,
            "predictions": verdict.predicted,
            "dead_letters": verdict.dead_letters,
            "filtered": 0,
            "seconds": round(seconds, 2),
            "events_per_s": round(verdict.produced / seconds),
            "latency_ms": _named([self.judge.latency.percentile(share / 100) for share in _PERCENTILES]),
            "worker_latency_ms": told["latency_ms"],
            "mean_batch_rows": told["mean_batch_rows"],
            "quality": self.quality.figures(),
            "referee": verdict.document(),
            "incident": self.incident.told(),
            "fast_features": self.freshness.shares(self.begun, ended),
            "features_app": self._of_app(ended),
            "faults": [
                {"fault": one.name, "at_s": round(one.at_s, 2), "recovered_s": one.recovered_s} for one in self.faults
            ],
        }

    def _of_app(self, now: float) -> Mapping[str, Any] | None:
        return None if self.app is None else self.app.told(self.begun, now)


def _named(percentiles: Any) -> dict[str, float]:
    return {f"p{share}": float(value) for share, value in zip(_PERCENTILES, percentiles, strict=True)}
