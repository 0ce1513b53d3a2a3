"""One worker of the job on topics of its own: ``worker.py BROKERS REDIS_URL IN OUT [GUARANTEE [LOG [SETS]]]``; prints its summary when it
is stopped."""

from __future__ import annotations

import json
import signal
import sys
import threading
import uuid
from pathlib import Path

import streamml as sm
from loadtests.baseline.topology import Event, topology, two_sets
from streamml.compose.locate import Located
from streamml.ops.run import RunOptions, StopSignal, run
from streamml.settings.settings import Settings


def main(
    brokers: str,
    redis_url: str,
    topic_in: str,
    topic_out: str,
    guarantee: str = "at_least_once",
    log: str = "",
    sets: str = "one",
) -> None:
    """Work until SIGTERM; ``log``: topic of a feature log; ``sets``: one or two in the lookup."""
    stop = StopSignal()
    signal.signal(signal.SIGTERM, lambda number, frame: threading.Thread(target=stop.set).start())
    job = sm.Topology(
        f"bench-{uuid.uuid4().hex[:8]}",
        source=sm.Source(topic_in, schema=Event, start="earliest"),
        steps=(two_sets if sets == "two" else topology).steps,
        sink=topology.sink.into(topic_out),
        dead_letters=topology.dead_letters,
        feature_log=sm.FeatureLog(log) if log else None,
    )
    settings = Settings.model_validate(
        {"brokers": brokers, "redis": {"url": redis_url}, "worker": {"processing_guarantee": guarantee}}
    )
    print(json.dumps(run(Located(job, Path(__file__).parent), settings, RunOptions(), stop)))


if __name__ == "__main__":
    main(*sys.argv[1:])
