"""How old each event is when its prediction arrives, by its id: no framework need pass a record's time on.

``python -m loadtests.peers.watcher BROKERS IN OUT`` prints a line when the first prediction has come, and on SIGTERM
``[[number of the event, ms], …]`` in order of arrival, as JSON.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition


def main(brokers: str, topic_in: str, topic_out: str) -> None:
    """Watch until SIGTERM."""
    ended = False

    def end(number: int, frame: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    consumer = _reader(brokers, topic_out)
    arrived: list[tuple[float, Message]] = []
    while not ended:
        first = consumer.poll(0.1)
        if first is None or first.error() is not None:
            continue
        if not arrived:
            print("first", flush=True)
        now = time.time() * 1000
        found = [first, *consumer.consume(1000, 0)]
        arrived += [(now, one) for one in found if one.error() is None]
    consumer.close()
    written = {_number(one): one.timestamp()[1] for one in _all_of(brokers, topic_in)}
    print(json.dumps([(_number(one), round(now - written[_number(one)], 1)) for now, one in arrived]))


def _reader(brokers: str, topic: str) -> Consumer:
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "watcher", "enable.partition.eof": True})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    return consumer


def _all_of(brokers: str, topic: str) -> Iterator[Message]:
    consumer = _reader(brokers, topic)
    left = len(consumer.assignment())
    while left:
        for message in consumer.consume(1000, 1.0):
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                left -= 1
    consumer.close()


def _number(message: Message) -> int:
    return int(json.loads(message.value() or b"")["event_id"].rpartition("-")[2])


if __name__ == "__main__":
    main(*sys.argv[1:])
