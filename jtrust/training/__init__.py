"""The device's side: one pure iteration of rollout, advantages and update."""

from jtrust.training.build import make_trainer
from jtrust.training.evaluation import evaluate_policy
from jtrust.training.state import TrainState
from jtrust.training.trainer import Trainer

__all__ = ["TrainState", "Trainer", "evaluate_policy", "make_trainer"]
