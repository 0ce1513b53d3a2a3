"""The job with Quix Streams: a row at a time, as a StreamingDataFrame has no batches."""

from __future__ import annotations

from quixstreams import Application
from quixstreams.models import JSONDeserializer, JSONSerializer

from loadtests.peers.job import CONSUMER, PRODUCER, Place, Scorer, decode, encode, place


def application(where: Place) -> Application:
    """Read, score, write."""
    app = Application(
        where.brokers,
        consumer_group=where.group,
        auto_offset_reset="earliest",
        consumer_extra_config=CONSUMER,
        producer_extra_config=PRODUCER,
        loglevel="WARNING",
    )
    scorer = Scorer(where.redis_url)
    events = app.topic(where.topic_in, key_deserializer="bytes", value_deserializer=JSONDeserializer(loads=decode))
    predictions = app.topic(where.topic_out, key_serializer="str", value_serializer=JSONSerializer(dumps=encode))
    app.dataframe(events).apply(scorer.prediction).to_topic(predictions, key=lambda one: one.event_id)
    return app


if __name__ == "__main__":
    application(place()).run()
