"""Streaming near-real-time ML on a Kafka-compatible broker: your model, your topic; nothing lost.

``import streamml as sm`` gives the names that a topology is written with. None of them opens, loads or reads anything.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from streamml.batch.column import ColumnType, boolean, f4, f8, i4, i8, text, timestamp
    from streamml.topology.features import FeatureSet, NearCache
    from streamml.topology.model_steps import Batching, Calls, Onnx, Output, Python, Torch
    from streamml.topology.steps import PARENT, Explode, FeatureLookup, Filter, Transform, failures
    from streamml.topology.topology import DeadLetterQueue, FeatureLog, RedisSink, Sink, Source, Topology

__all__ = [
    "Topology",
    "Source",
    "Sink",
    "DeadLetterQueue",
    "FeatureLog",
    "RedisSink",
    "FeatureSet",
    "NearCache",
    "FeatureLookup",
    "Transform",
    "Filter",
    "Explode",
    "PARENT",
    "failures",
    "Onnx",
    "Python",
    "Torch",
    "Output",
    "Batching",
    "Calls",
    "ColumnType",
    "boolean",
    "i4",
    "i8",
    "f4",
    "f8",
    "timestamp",
    "text",
]

_HOMES: Final = {
    "streamml.topology.topology": __all__[:6],
    "streamml.topology.features": ("FeatureSet", "NearCache"),
    "streamml.topology.steps": __all__[8:14],
    "streamml.topology.model_steps": __all__[14:20],
    "streamml.batch.column": __all__[20:],
}


def __getattr__(name: str) -> object:
    # numpy and pydantic take a third of a second; the command line must start without them.
    from importlib import import_module

    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'streamml' has no attribute {name!r}")
