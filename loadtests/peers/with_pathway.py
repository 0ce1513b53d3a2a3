"""The job with Pathway: its own JSON in Rust, a UDF of batches for features and network."""

from __future__ import annotations

import pathway as pw

from loadtests.peers.job import BATCH, CONSUMER, FIELDS, PRODUCER, Place, Scorer, place

COMMIT_MS = 5
"""How often what was read goes on: the default of 1.5 s would be the latency."""


class Events(pw.Schema):
    """What the job needs of an event."""

    event_id: str
    account: int
    amount: float
    merchant: int
    hour: int
    weekday: int
    balance: float
    days_since_opened: int


def build(where: Place) -> None:
    """Read, score, write."""
    scorer = Scorer(where.redis_url)

    # What is not deterministic is kept for ever, to be taken back one day.
    @pw.udf(max_batch_size=BATCH, deterministic=True)
    def score(accounts: list[int], *columns: list[float]) -> list[float]:
        return scorer.scores(accounts, columns)

    servers = {"bootstrap.servers": where.brokers}
    consumer = {name: str(value) for name, value in CONSUMER.items()}
    producer = {name: str(value) for name, value in PRODUCER.items()}
    events = pw.io.kafka.read(
        {**servers, **consumer, "group.id": where.group, "auto.offset.reset": "earliest"},
        where.topic_in,
        schema=Events,
        format="json",
        autocommit_duration_ms=COMMIT_MS,
    )
    predictions = events.select(events.event_id, score=score(events.account, *(events[name] for name in FIELDS)))
    pw.io.kafka.write(predictions, {**servers, **producer}, where.topic_out, format="json", key=predictions.event_id)


if __name__ == "__main__":
    build(place())
    pw.run(monitoring_level=pw.MonitoringLevel.NONE, max_expression_batch_size=BATCH)
