"""A static member that is killed when it is asked to give partitions up: ``dying_member.py SERVERS GROUP TOPIC NAME``."""

from __future__ import annotations

import os
import signal
import sys

from confluent_kafka import Consumer, TopicPartition


def main(servers: str, group: str, topic: str, name: str) -> None:
    """Poll until the kill."""

    def revoking(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": group,
            "group.instance.id": name,
            "heartbeat.interval.ms": 100,
            "session.timeout.ms": 20_000,
            "partition.assignment.strategy": "cooperative-sticky",
        }
    )
    consumer.subscribe([topic], on_revoke=revoking)
    while True:
        consumer.poll(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:5])
