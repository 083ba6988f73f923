"""The host's side: run directories, checkpoints, metrics, progress."""

from jtrust.runs.evaluate import evaluate, load_policy, run_episodes
from jtrust.runs.run import Result, resume, train
from jtrust.runs.sinks import IterationInfo, Sink

__all__ = [
    "IterationInfo", "Result", "Sink", "evaluate", "load_policy", "resume", "run_episodes",
    "train",
]
