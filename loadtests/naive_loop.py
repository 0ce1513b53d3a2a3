"""The loop that people write by hand for the flight-delay job: poll a batch, look up, score, produce, flush, commit.

Honest, and not unkind: it batches, it commits only after a flush, it skips what it cannot parse. ``naive_loop.py BROKERS REDIS_URL GROUP``
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import redis
from confluent_kafka import Consumer, Producer

from streamml.adapters.redis.catalogue import unpack_pointer
from streamml.adapters.redis.layout import Layout, entity_keys, entity_prefix, pointer_key
from streamml.ports.feature_store import FeatureSchema
from topologies.flight_delay.topology import FEATURE_SETS, model_inputs

brokers, redis_url, group = sys.argv[1:4]
consumer = Consumer(
    {"bootstrap.servers": brokers, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
)
producer = Producer({"bootstrap.servers": brokers})
store = redis.Redis.from_url(redis_url)
session = onnxruntime.InferenceSession(str(Path("topologies/flight_delay/models/flight-delay/1/model.onnx")))
consumer.subscribe(["departures"])
while True:
    events = []
    for message in consumer.consume(500, 0.1):
        try:
            event = json.loads(message.value())
            event["scheduled_at"] = np.datetime64(event["scheduled_at"].rstrip("Z"), "us")
            event["departed_at"] = np.datetime64(event["departed_at"].rstrip("Z"), "us")
            events.append(event)
        except (ValueError, KeyError, TypeError, AttributeError):
            print("skipped a bad record")
    if not events:
        continue
    columns = {
        name: np.array([event[name] for event in events]) for name in ("scheduled_at", "departed_at", "distance")
    }
    for one in FEATURE_SETS:
        layout = Layout.of(FeatureSchema(one.name, tuple(one.columns.items())))
        prefix = entity_prefix(one.name, unpack_pointer(store.get(pointer_key(one.name))).version)
        found = layout.decode(
            store.mget(entity_keys(prefix, [tuple(str(event[part]).encode() for part in one.key) for event in events]))
        )
        columns |= {
            f"{one.name}.{name}": np.where(found.present, found.columns[name], kind.default)
            for name, kind in one.columns.items()
        }
    inputs = model_inputs(columns)
    probabilities, delays = session.run(["probabilities", "delay"], {"x": inputs["x"]})
    for place, event in enumerate(events):
        prediction = {name: event[name] for name in ("flight_id", "carrier", "origin", "dest")}
        prediction |= {
            "departure_delay": float(inputs["departure_delay"][place]),
            "late_probability": float(probabilities[place, 1]),
        }
        prediction["expected_delay"] = float(delays[place, 0])
        producer.produce("arrival-predictions", json.dumps(prediction), event["flight_id"])
    producer.flush()
    consumer.commit(asynchronous=False)
