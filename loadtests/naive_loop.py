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

from loadtests.baseline.topology import FIELDS
from loadtests.faults.stream import MODELS
from loadtests.faults.topology import FAST_TTL_S, PREDICTIONS, account, recent, topology, troubled_inputs
from streamml.adapters.redis.catalogue import unpack_pointer
from streamml.adapters.redis.keys import entity_keys, entity_prefix, pointer_key
from streamml.adapters.redis.layout import Layout
from streamml.stages.freshness import State, states

brokers, redis_url, group, session_ms = sys.argv[1:5]
settings = {"bootstrap.servers": brokers, "topic.metadata.refresh.interval.ms": 2000}
own = {"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
consumer = Consumer({**settings, **own, "session.timeout.ms": int(session_ms)})
producer = Producer(settings)
store: Any = redis.Redis.from_url(redis_url)
layout, fast_layout = Layout.of(account.schema), Layout.of(recent.schema)
fast_prefix = entity_prefix(recent.name, fast_layout.live_version)
session = onnxruntime.InferenceSession(str(MODELS / "mlp" / "1" / "model.onnx"))
consumer.subscribe(list(topology.source.topics))
while True:
    events, origins, stamps = [], [], []
    for message in consumer.consume(500, 0.1):
        try:
            events.append(json.loads(message.value() or b""))
            origins.append(f"{message.topic()}/{message.partition()}/{message.offset()}")
            stamps.append(message.timestamp()[1] * 1000)
        except (ValueError, TypeError):
            print("skipped a bad record")
    if not events:
        continue
    version = unpack_pointer(store.get(pointer_key("account"))).version
    entities = [(b"%d" % event["account"],) for event in events]
    found = layout.decode(store.mget(entity_keys(entity_prefix("account", version), entities)))
    fast = fast_layout.decode(store.mget(entity_keys(fast_prefix, entities)))
    fates = states(fast.present, np.array(stamps), fast.event_time, FAST_TTL_S * 1_000_000)
    fates = np.zeros(len(events), np.int8) if fates is None else fates
    columns = {name: np.array([event[name] for event in events]) for name in FIELDS}
    columns |= {f"account.{name}": values for name, values in found.columns.items()}
    columns |= {f"recent.{name}": np.where(fates == 0, values, 0) for name, values in fast.columns.items()}
    inputs = troubled_inputs(columns)
    scores = session.run(["score"], {"x": inputs["x"]})[0][:, 0].tolist()
    made = zip(events, origins, stamps, scores, inputs["tick"].tolist(), found.present, fates.tolist(), strict=True)
    for event, origin, stamp, score, tick, present, fate in made:
        prediction = json.dumps({"event_id": event["event_id"], "score": score, "tick": tick})
        flags = f"account@{version}{'' if present else ':missing'},recent@{fast_layout.live_version}{State(fate).flag}"
        headers: dict[str, str | bytes | None] = {"streamml": f"1;{origin};mlp@1;0;{flags}"}
        producer.produce(PREDICTIONS, prediction, event["event_id"], headers=headers, timestamp=stamp // 1000)
    producer.flush()
    consumer.commit(asynchronous=False)
