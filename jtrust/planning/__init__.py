"""How a run would be on a device that is not here: its program compiled, and not run."""

from jtrust.planning.plan import Plan, plan

__all__ = ["Plan", "plan"]
