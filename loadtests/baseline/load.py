"""Events and features of the job, made by a seed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from loadtests.baseline.topology import account
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.loader import LoadPlan, load
from streamml.ports.feature_store import FeatureSchema

ACCOUNTS = 20_000
COUNTRIES = ("CH", "DE", "FR", "IT", "AT")
CHANNELS = ("web", "app", "branch")


def events(count: int, seed: int = 1) -> Iterator[tuple[bytes, bytes]]:
    """Key (the account) and JSON of ``count`` events; accounts are skewed as in Zipf's law."""
    random = np.random.default_rng(seed)
    ranks = np.arange(1, ACCOUNTS + 1)
    accounts = random.choice(ACCOUNTS, size=count, p=(1 / ranks) / (1 / ranks).sum()).tolist()
    amounts = random.uniform(1, 1000, count).round(2).tolist()
    balances = random.uniform(0, 10_000, count).round(2).tolist()
    whole = random.integers(0, (5000, 24, 7, 4000, len(COUNTRIES), len(CHANNELS)), (count, 6)).tolist()
    for number in range(count):
        merchant, hour, weekday, opened, country, channel = whole[number]
        event = {
            "event_id": f"event-{number:09d}",
            "account": accounts[number],
            "amount": amounts[number],
            "merchant": merchant,
            "country": COUNTRIES[country],
            "hour": hour,
            "weekday": weekday,
            "channel": CHANNELS[channel],
            "balance": balances[number],
            "days_since_opened": opened,
        }
        yield b"%d" % accounts[number], json.dumps(event).encode()


def feature_columns() -> dict[str, Any]:
    """Sixteen features of every account."""
    random = np.random.default_rng(2)
    return {name: random.normal(size=ACCOUNTS).astype(np.float32) for name in account.columns}


def load_features(url: str) -> None:
    """Write them as a version."""
    columns = {"account": np.arange(ACCOUNTS), "event_time": np.zeros(ACCOUNTS, "M8[us]"), **feature_columns()}
    load(Server(url), LoadPlan(FeatureSchema("account", tuple(account.columns.items())), ("account",)), [columns])


def produce_all(brokers: str, topic: str, count: int, tell: Callable[[int], None] = lambda done: None) -> None:
    """Write a backlog as fast as the client can."""
    from confluent_kafka import Producer

    settings: dict[str, Any] = {"bootstrap.servers": brokers, "compression.type": "lz4", "linger.ms": 20}
    producer = Producer({**settings, "queue.buffering.max.messages": 500_000})
    for number, (key, value) in enumerate(events(count)):
        while True:
            try:
                producer.produce(topic, value, key)
            except BufferError:
                producer.poll(0.1)
            else:
                break
        if number % 20_000 == 0:
            producer.poll(0)
            tell(number)
    producer.flush(30)


def produce_steadily(brokers: str, topic: str, rate: float, seconds: float) -> int:
    """Write at a steady rate, whatever happens behind it; the record's time is the moment of writing. How many were written."""
    from confluent_kafka import Producer

    prepared = list(events(int(rate * seconds), seed=3))
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 1})
    begun, sent = time.perf_counter(), 0
    while sent < len(prepared):
        due = min(len(prepared), int((time.perf_counter() - begun) * rate) + 1)
        for key, value in prepared[sent:due]:
            producer.produce(topic, value, key)
        sent = due
        producer.poll(0.002)
    producer.flush(30)
    return sent
