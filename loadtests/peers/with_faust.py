"""The job with Faust: ``take`` for batches, bytes in and out of topics, uvloop, no web server, no tables."""

from __future__ import annotations

import mode.loop

mode.loop.use("uvloop")

from tempfile import TemporaryDirectory  # noqa: E402  the loop is to be chosen before anything else is imported
from typing import Any  # noqa: E402

import faust  # noqa: E402
from faust.types import StreamT  # noqa: E402

from loadtests.peers.job import Place, Scorer, encode, place  # noqa: E402

BATCH = 1000
WITHIN_S = 0.005
"""How long a batch is waited for that is not full."""


def application(where: Place, folder: str) -> faust.App:
    """Read, score, write."""
    app = faust.App(
        where.group,
        broker=f"kafka://{where.brokers}",
        datadir=folder,
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=8 * BATCH,
        producer_linger=0.002,
        producer_compression_type="lz4",
        producer_max_batch_size=1_000_000,
    )
    scorer = Scorer(where.redis_url)
    raw: dict[str, Any] = {
        "key_type": bytes,
        "value_type": bytes,
        "key_serializer": "raw",
        "value_serializer": "raw",
    }
    events, predictions = app.topic(where.topic_in, **raw), app.topic(where.topic_out, **raw)

    @app.agent(events)
    async def score(stream: StreamT[bytes]) -> None:
        async for values in stream.take(BATCH, within=WITHIN_S):
            for one in scorer.predictions(values):
                await predictions.send(key=one.event_id.encode(), value=encode(one))

    return app


if __name__ == "__main__":
    with TemporaryDirectory(prefix="faust-") as data:
        faust.Worker(application(place(), data), loglevel="WARN").execute_from_commandline()
