"""One page about one run or many: as a file (`report`), or served while they go on (`watch`)."""

from jtrust.reporting.report import report
from jtrust.reporting.watch import watch

__all__ = ["report", "watch"]
