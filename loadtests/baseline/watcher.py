"""A downstream service: notes how old each record is when it arrives. ``watcher.py BROKERS TOPIC``.

Prints a line when the first record has come, and on SIGTERM all latencies in ms, in order of arrival, as JSON.
"""

from __future__ import annotations

import json
import signal
import sys
import time

from confluent_kafka import Consumer, TopicPartition


def main(brokers: str, topic: str) -> None:
    """Watch until SIGTERM."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "watcher", "auto.offset.reset": "earliest"})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    ended = False

    def end(number: int, frame: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    latencies: list[float] = []
    while not ended:
        first = consumer.poll(0.1)
        if first is None:
            continue
        if not latencies:
            print("first", flush=True)
        now = time.time() * 1000
        latencies += [round(now - one.timestamp()[1], 1) for one in [first, *consumer.consume(1000, 0)]]
    consumer.close()
    print(json.dumps(latencies))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
