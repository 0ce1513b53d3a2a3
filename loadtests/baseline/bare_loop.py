"""Consume, produce, nothing else, with the worker's client settings: the yardstick. ``bare_loop.py BROKERS IN OUT COUNT``.

It ends after COUNT records, or after SIGTERM. No acknowledgement is looked at, no offset committed.
"""

from __future__ import annotations

import signal
import sys
import uuid

from confluent_kafka import Consumer, Producer

from streamml.adapters.kafka import sink
from streamml.adapters.kafka.membership import member_properties


def main(brokers: str, topic_in: str, topic_out: str, count: int) -> None:
    """Copy ``count`` records."""
    settings = member_properties({"bootstrap.servers": brokers}, f"bare-{uuid.uuid4().hex}")
    consumer = Consumer({**settings, "auto.offset.reset": "earliest", "enable.partition.eof": False})
    producer = Producer({**sink.DEFAULTS, **sink.SAFETY, "bootstrap.servers": brokers})
    consumer.subscribe([topic_in])
    ended = False

    def end(number: int, frame: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    copied = 0
    while copied < count and not ended:
        first = consumer.poll(0.1)
        if first is None:
            continue
        messages = [first, *consumer.consume(4095, 0)]
        for message in messages:
            while True:
                try:
                    producer.produce(topic_out, message.value(), message.key(), timestamp=message.timestamp()[1])
                except BufferError:
                    producer.poll(0.01)
                else:
                    break
        producer.poll(0)
        copied += len(messages)
    producer.flush()
    consumer.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
