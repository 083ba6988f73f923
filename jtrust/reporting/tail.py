"""`metrics.jsonl` as it grows: only what is new is read, and what is no row is counted and left."""

from __future__ import annotations

import json
import math
import os
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from jtrust.paths import open_plain

LONGEST_LINE = 2**20
MOST_ROWS = 1_000_000
_MOST_NAMES = 300
_CHUNK = 2**22
_NAN = math.nan


class MetricsTail:
    """The rows of a metrics file so far, by column.

    A run that is resumed cuts its metrics back to a checkpoint, so the file may get shorter, or
    hold other rows where they were read: both are noticed, and the file is read again.

    Args:
      path: of the file; it need not be there yet.

    Attributes:
      rows: how many there are.
      unreadable: whole lines that are no row.
      problem: why nothing can be read, in words; "" where all is well.
      bytes_read: in all, since this object was made.
    """

    def __init__(self, path: Path):
        self.path = path
        self.bytes_read = 0
        self._begin_again()
        self.problem = ""

    def _begin_again(self) -> None:
        self.rows = self.unreadable = 0
        self._columns: dict[str, array] = {}
        self._offset, self._left, self._last = 0, b"", b""
        self._inode, self._in_long_line = 0, False

    def column(self, name: str) -> np.ndarray:
        """Values of one metric, [rows]; NaN where a row has none."""
        if name not in self._columns:
            return np.full(self.rows, _NAN)
        return np.array(self._columns[name], dtype=float)

    @property
    def names(self) -> list[str]:
        return list(self._columns)

    @property
    def truncated(self) -> bool:
        """Whether there are more rows than are read."""
        return self.rows >= MOST_ROWS

    def poll(self) -> bool:
        """Reads what is new; whether anything changed."""
        before = (self.rows, self.unreadable, self.problem, self._inode)
        try:
            file = open_plain(self.path)
        except FileNotFoundError:
            if self.path.parent.is_dir():
                self._begin_again()
                self.problem = ""
            else:  # what was read stays on show
                self.problem = "the directory is gone"
            return before != (self.rows, self.unreadable, self.problem, self._inode)
        except OSError as error:
            self.problem = f"{self.path.name} cannot be read: {error.strerror}"
            return before[2] != self.problem
        with file:
            self.problem = ""
            changed = self._is_another(file)
            if changed:
                self._begin_again()
            self._inode = os.fstat(file.fileno()).st_ino
            file.seek(self._offset)
            while not self.truncated and (chunk := file.read(_CHUNK)):
                self.bytes_read += len(chunk)
                self._offset += len(chunk)
                self._take(chunk)
        return changed or before != (self.rows, self.unreadable, self.problem, self._inode)

    def _is_another(self, file: Any) -> bool:
        """Whether the file no longer holds what was read of it."""
        status = os.fstat(file.fileno())
        if self._inode and (status.st_ino != self._inode or status.st_size < self._offset):
            return True
        seen = self._last + self._left
        if not seen:
            return False
        file.seek(self._offset - len(seen))
        return file.read(len(seen)) != seen

    def _take(self, chunk: bytes) -> None:
        lines = (self._left + chunk).split(b"\n")
        self._left = lines.pop()
        for line in lines:
            if self._in_long_line:
                self._in_long_line, self.unreadable = False, self.unreadable + 1
            elif not self._add(line):
                self.unreadable += 1
        if lines:
            # All that is compared later; of a line that is too long, only its end.
            self._last = lines[-1][-LONGEST_LINE:] + b"\n"
        if len(self._left) > LONGEST_LINE:
            self._in_long_line, self._left, self._last = True, b"", b""

    def _add(self, line: bytes) -> bool:
        """Whether a line is a row, which is then added."""
        if len(line) > LONGEST_LINE or self.truncated:
            return False
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return False
        if not isinstance(row, dict):
            return False
        numbers = {key: to_float(value) for key, value in row.items()}
        iteration, step = numbers.get("iteration", _NAN), numbers.get("step", _NAN)
        if not (math.isfinite(iteration) and math.isfinite(step)):
            return False
        self._drop_from(iteration)
        columns = self._columns
        for key, value in numbers.items():
            if key not in columns:
                if len(columns) >= _MOST_NAMES or len(key) > 100:
                    continue
                columns[key] = array("d", [_NAN]) * self.rows
            columns[key].append(value)
        self.rows += 1
        if len(columns) > len(numbers):
            for values in columns.values():
                if len(values) < self.rows:
                    values.append(_NAN)
        return True

    def _drop_from(self, iteration: float) -> None:
        """Of rows that a run wrote twice, having gone back, the later ones count."""
        seen = self._columns.get("iteration")
        if not seen or seen[-1] < iteration:
            return
        keep = int(np.searchsorted(np.array(seen), iteration, side="left"))
        for values in self._columns.values():
            del values[keep:]
        self.rows = keep


def to_float(value: Any) -> float:
    """A finite number as a float; NaN for anything else."""
    if type(value) not in (int, float):
        return _NAN
    try:
        return float(value) if math.isfinite(value) else _NAN
    except OverflowError:  # a whole number beyond what a float can be
        return _NAN
