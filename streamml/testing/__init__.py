"""For users' own tests: a topology run in this process, in virtual time. See docs/testing.md."""

from streamml.engine.dead_letters import DeadLetter
from streamml.testing.driver import TopologyDriver
from streamml.testing.results import Prediction

__all__ = ["TopologyDriver", "Prediction", "DeadLetter"]
