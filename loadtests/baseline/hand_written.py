"""The best loop that one would write by hand for the job: ``hand_written.py BROKERS REDIS_URL IN OUT``; ends after SIGTERM.

One thread, and nothing per record that can be done per batch: typed decoding, each account asked for once, the reply read as
one array, one header with id and model, acknowledgements counted, offsets committed every 200 ms behind what is acknowledged.
What it does not do: a record that does not decode ends it, nobody hears of Redis being away, a rebalance is not waited for.
"""

from __future__ import annotations

import signal
import sys
import time
import uuid
from collections import deque
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from loadtests.peers.job import BATCH, Scorer, encode
from streamml.adapters.kafka import sink
from streamml.adapters.kafka.membership import member_properties

COMMIT_S = 0.2
Marks = dict[tuple[str, int], int]


class Sent:
    """A batch that is on its way, and what may be committed when all of it is acknowledged."""

    def __init__(self, rows: int, marks: Marks) -> None:
        self.left = rows
        self.marks = marks

    def acked(self, error: Any, message: Any) -> None:
        """One record is there."""
        if error is not None:
            raise SystemExit(str(error))
        self.left -= 1


def main(brokers: str, redis_url: str, topic_in: str, topic_out: str) -> None:
    """Work until SIGTERM."""
    ended = False

    def end(number: int, frame: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    own = {"auto.offset.reset": "earliest", "enable.partition.eof": False}
    group = f"hand-{uuid.uuid4().hex}"
    consumer = Consumer({**member_properties({"bootstrap.servers": brokers}, group), **own})
    producer = Producer({**sink.DEFAULTS, **sink.SAFETY, "bootstrap.servers": brokers})
    scorer = Scorer(redis_url)
    on_its_way: deque[Sent] = deque()
    done: Marks = {}
    commit_at = 0.0
    consumer.subscribe([topic_in])
    while not ended:
        first = consumer.poll(0.002 if on_its_way else 0.05)
        if first is not None:
            messages = [first, *consumer.consume(BATCH - 1, 0)]
            predictions = scorer.predictions([message.value() or b"" for message in messages])
            sent = Sent(len(messages), _marks(messages))
            on_its_way.append(sent)
            for message, prediction in zip(messages, predictions, strict=True):
                mark = f"1;{topic_in}/{message.partition()}/{message.offset()};mlp@1;0;"
                value, key = encode(prediction), prediction.event_id
                _produce(producer, topic_out, value, key, sent, message.timestamp()[1], [("streamml", mark)])
        producer.poll(0)
        while on_its_way and not on_its_way[0].left:
            done |= on_its_way.popleft().marks
        if done and time.monotonic() >= commit_at:
            places = [TopicPartition(topic, number, offset) for (topic, number), offset in done.items()]
            consumer.commit(offsets=places, asynchronous=True)
            done, commit_at = {}, time.monotonic() + COMMIT_S
    producer.flush()
    consumer.close()


def _marks(messages: list[Message]) -> Marks:
    """One past the last offset of each partition."""
    return {(str(one.topic()), int(one.partition() or 0)): int(one.offset() or 0) + 1 for one in messages}


def _produce(producer: Any, topic: str, value: bytes, key: str, sent: Sent, stamp: int, headers: Any) -> None:
    while True:
        try:
            producer.produce(topic, value, key, on_delivery=sent.acked, timestamp=stamp, headers=headers)
        except BufferError:
            producer.poll(0.01)
        else:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
