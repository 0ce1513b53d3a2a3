"""The loop that people write by hand for the job of ``make chaos``: poll a batch, look up, score, produce, flush, commit.

Honest, and not unkind: it batches, it commits only behind a flush, it skips what it cannot parse, it says which record a
prediction is of. ``naive_loop.py BROKERS REDIS_URL GROUP SESSION_MS``
"""

import json
import sys
from typing import Any

import numpy as np
import onnxruntime
import redis
from confluent_kafka import Consumer, Producer

from loadtests.baseline.topology import FIELDS, account
from loadtests.faults.stream import MODELS
from loadtests.faults.topology import PREDICTIONS, topology, troubled_inputs
from streamml.adapters.redis.catalogue import unpack_pointer
from streamml.adapters.redis.keys import entity_keys, entity_prefix, pointer_key
from streamml.adapters.redis.layout import Layout
from streamml.ports.feature_store import FeatureSchema

brokers, redis_url, group, session_ms = sys.argv[1:5]
settings = {"bootstrap.servers": brokers, "topic.metadata.refresh.interval.ms": 2000}
own = {"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
consumer = Consumer({**settings, **own, "session.timeout.ms": int(session_ms)})
producer = Producer(settings)
store: Any = redis.Redis.from_url(redis_url)
layout = Layout.of(FeatureSchema("account", tuple(account.columns.items())))
session = onnxruntime.InferenceSession(str(MODELS / "mlp" / "1" / "model.onnx"))
consumer.subscribe(list(topology.source.topics))
while True:
    events, origins = [], []
    for message in consumer.consume(500, 0.1):
        try:
            events.append(json.loads(message.value() or b""))
            origins.append(f"{message.topic()}/{message.partition()}/{message.offset()}")
        except (ValueError, TypeError):
            print("skipped a bad record")
    if not events:
        continue
    version = unpack_pointer(store.get(pointer_key("account"))).version
    keys = entity_keys(entity_prefix("account", version), [(b"%d" % event["account"],) for event in events])
    found = layout.decode(store.mget(keys))
    columns = {name: np.array([event[name] for event in events]) for name in FIELDS}
    columns |= {f"account.{name}": values for name, values in found.columns.items()}
    scores = session.run(["score"], {"x": troubled_inputs(columns)["x"]})[0][:, 0].tolist()
    for event, origin, score, present in zip(events, origins, scores, found.present.tolist(), strict=True):
        prediction = json.dumps({"event_id": event["event_id"], "score": score})
        made = f"1;{origin};mlp@1;0;account@{version}{'' if present else ':missing'}"
        producer.produce(PREDICTIONS, prediction, event["event_id"], headers={"streamml": made})
    producer.flush()
    consumer.commit(asynchronous=False)
