"""Serves a worker's metrics and health; they are read when they are asked for, so a worker pays nothing in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from streamml.engine.engine import Engine
from streamml.errors import SettingsError
from streamml.telemetry import catalogue
from streamml.telemetry.catalogue import Metric
from streamml.telemetry.observer import Observer

_BOUNDS_S: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    3600.0,
)


class WorkerCollector(Collector):
    """The catalogue's metrics of one worker."""

    def __init__(self, engine: Engine, observer: Observer) -> None:
        self._engine = engine
        self._observer = observer

    def collect(self) -> Iterator[Any]:
        """All metrics now."""
        done, watched = self._engine.statistics, self._observer
        yield _counter(catalogue.CONSUMED, {(): done.polled})
        yield _counter(catalogue.PREDICTIONS, {(): done.predictions})
        yield _counter(catalogue.FILTERED, {(): done.filtered})
        yield _counter(catalogue.DEAD_LETTERS, dict(watched.dead_letters))
        yield _counter(catalogue.FEATURES, _feature_states(dict(watched.flags)))
        yield from self._near_caches()
        yield _counter(catalogue.LATE, {(): watched.flags.get("late", 0)})
        yield _counter(catalogue.RETRIES, {(): done.retries})
        yield _counter(catalogue.STALE_RESULTS, {(): done.dropped_stale})
        flushes = {(str(stage), reason.value): count for (stage, reason), count in dict(done.flushes).items()}
        yield _counter(catalogue.BATCHES, flushes)
        steps = dict(watched.steps)
        yield _counter(catalogue.STEP_ROWS, {(name,): cost.rows for name, cost in steps.items()})
        yield _counter(catalogue.STEP_SECONDS, {(name,): cost.seconds for name, cost in steps.items()})
        yield _gauge(catalogue.PAUSED, {(): self._engine.group_state.paused})
        yield _counter(catalogue.TOO_LARGE, {(name,): cost.too_large for name, cost in steps.items()})
        guards = list(watched.guards)
        yield _gauge(catalogue.BREAKERS, {(guard.name,): float(guard.open) for guard in guards})
        yield _counter(catalogue.BREAKER_OPENINGS, {(guard.name,): guard.openings for guard in guards})
        yield _gauge(catalogue.IN_FLIGHT, {(): self._engine.gauge.rows})
        yield _gauge(catalogue.IN_FLIGHT_BYTES, {(): self._engine.gauge.size_bytes})
        yield _gauge(catalogue.QUEUED, {(str(n),): rows for n, rows in enumerate(self._engine.queued_rows())})
        yield self._latency()

    def _near_caches(self) -> Iterator[Any]:
        uses = self._observer.near_caches()
        found = {
            (use.set, result): count for use in uses for result, count in (("hit", use.hits), ("miss", use.misses))
        }
        yield _counter(catalogue.NEAR_ENTITIES, found)
        yield _counter(catalogue.NEAR_CHANGES, {(use.set,): use.changes for use in uses})
        yield _counter(catalogue.NEAR_LOSSES, {(use.set,): use.losses for use in uses})
        yield _gauge(catalogue.NEAR_BYTES, {(use.set,): use.size_bytes for use in uses})
        yield _gauge(catalogue.NEAR_STALENESS, {(use.set,): use.staleness_s for use in uses})

    def _latency(self) -> HistogramMetricFamily:
        latency = self._observer.latency
        buckets = [(str(bound), latency.at_most(bound * 1000)) for bound in _BOUNDS_S]
        family = HistogramMetricFamily(catalogue.LATENCY.name, catalogue.LATENCY.help)
        family.add_metric([], [*buckets, ("+Inf", latency.total)], sum_value=latency.sum_ms / 1000)
        return family


def serve(
    engine: Engine, observer: Observer, host: str, port: int, probes: Mapping[str, Callable[[], tuple[bool, str]]]
) -> tuple[int, Any]:
    """Serve ``/metrics`` and probes; returns the port (a free one where ``port`` is 0) and the server.

    Args:
        probes: by path, ``/ready`` for example; each says whether all is well, and why: 200 or 503 with one JSON line.

    Raises:
        SettingsError: the port cannot be opened.
    """
    registry = CollectorRegistry()
    registry.register(WorkerCollector(engine, observer))
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise SettingsError(
            f"The metrics port {port} on {host} cannot be opened ({error.strerror}); choose another by --metrics-port."
        ) from error
    metrics = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        probe = probes.get(environ.get("PATH_INFO", ""))
        if probe is None:
            return metrics(environ, start_response)
        ok, reason = probe()
        start_response("200 OK" if ok else "503 Service Unavailable", [("Content-Type", "application/json")])
        return [json.dumps({"ok": ok, "reason": reason}).encode() + b"\n"]

    server.set_app(answer)
    return int(server.server_port), server


def _feature_states(flags: dict[str, int]) -> dict[tuple[str, ...], int]:
    found: dict[tuple[str, ...], int] = {}
    for flag, count in flags.items():
        if flag in ("late", "tombstone"):
            continue
        named, _, state = flag.partition(":")
        name, _, version = named.partition("@")
        found[name, version, state or "fresh"] = count
    return found


def _counter(metric: Metric, values: Mapping[Any, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(list(labels), value)
    return family


def _gauge(metric: Metric, values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(list(labels), value)
    return family
