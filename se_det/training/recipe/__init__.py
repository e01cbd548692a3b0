"""A recipe from facts: what the data, the machine and the time decide of a training."""

from .decide import Goal, decide
from .facts import DataFacts, MachineFacts, measure_data, measure_machine

__all__ = ["DataFacts", "Goal", "MachineFacts", "decide", "measure_data", "measure_machine"]
