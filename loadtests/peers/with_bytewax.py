"""The job with Bytewax: a batch is what one partition had; ``flat_map_batch``, as its docs say for work that is cheaper together."""

from __future__ import annotations

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.run import cli_main

from loadtests.peers.job import BATCH, CONSUMER, PRODUCER, Place, Scorer, encode, place

Read = KafkaSourceMessage[bytes, bytes]
Written = KafkaSinkMessage[bytes, bytes]


def dataflow(where: Place) -> Dataflow:
    """Read, score, write."""
    scorer = Scorer(where.redis_url)

    def score(messages: list[Read]) -> list[Written]:
        predictions = scorer.predictions([message.value for message in messages])
        return [KafkaSinkMessage(one.event_id.encode(), encode(one)) for one in predictions]

    flow = Dataflow("job")
    consumer = {name: str(value) for name, value in CONSUMER.items()}
    producer = {name: str(value) for name, value in PRODUCER.items()}
    source = KafkaSource([where.brokers], [where.topic_in], add_config=consumer, batch_size=BATCH)
    scored = op.flat_map_batch("score", op.input("events", flow, source), score)
    op.output("predictions", scored, KafkaSink([where.brokers], where.topic_out, add_config=producer))
    return flow


if __name__ == "__main__":
    cli_main(dataflow(place()))
