"""One page about one run or many: as a file (`report`), or served while they go on (`watch`)."""

from jtrust.reporting.report import report

__all__ = ["report"]
