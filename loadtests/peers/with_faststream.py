"""The job with FastStream on confluent-kafka: batches, acknowledged when they are done, decoded by a decoder of their own."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker

from loadtests.peers.job import BATCH, CONSUMER, PRODUCER, Place, Scorer, encode, place

POLL_S = 0.005
"""How long a batch is waited for that is not full: the default of 0.1 s would be most of the latency."""


async def undecoded(message: Any) -> list[bytes]:
    """Bodies as they are: decoding them one by one, through a coroutine each, takes longer than the job."""
    return [one.value() for one in message.raw_message]


def application(where: Place) -> FastStream:
    """Read, score, write."""
    # Both kinds of client get all properties and leave out what is not theirs.
    broker = KafkaBroker(where.brokers, config={**CONSUMER, **PRODUCER}, logger=None, apply_types=False)
    scorer = Scorer(where.redis_url)

    @broker.subscriber(
        where.topic_in,
        group_id=where.group,
        auto_offset_reset="earliest",
        batch=True,
        max_records=BATCH,
        polling_interval=POLL_S,
        ack_policy=AckPolicy.ACK,
        decoder=undecoded,
    )
    async def score(values: list[bytes]) -> None:
        sent = [
            await broker.publish(encode(one), where.topic_out, key=one.event_id.encode(), no_confirm=True)
            for one in scorer.predictions(values)
        ]
        # One by one and confirmed together is a quarter quicker than publish_batch, which makes a task of each.
        await asyncio.gather(*sent)

    return FastStream(broker, logger=None)


if __name__ == "__main__":
    uvloop.run(application(place()).run())
