"""Many runs as one program: seeds and settings side by side, each run in a directory of its own."""

from jtrust.sweeps.comparison import compare
from jtrust.sweeps.results import ManyResults, MemberResult
from jtrust.sweeps.sweep import resume_many, train_many

__all__ = ["ManyResults", "MemberResult", "compare", "resume_many", "train_many"]
