"""The device's side: one pure iteration of rollout, advantages and update."""

from jtrust.training.build import make_trainer
from jtrust.training.evaluation import evaluate_policy
from jtrust.training.loop import Trainer
from jtrust.training.state import TrainState

__all__ = ["TrainState", "Trainer", "evaluate_policy", "make_trainer"]
