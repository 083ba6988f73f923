"""The host's side: run directories, checkpoints, metrics, progress."""

from jtrust.runs.evaluate import evaluate, load_policy, run_episodes
from jtrust.runs.run import Result, resume, train

__all__ = ["Result", "evaluate", "load_policy", "resume", "run_episodes", "train"]
