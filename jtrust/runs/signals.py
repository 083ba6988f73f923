"""SIGINT and SIGTERM: finish the iteration in hand, or, the second time, stop at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While entered, the first signal is only noted, in `number`; a second one ends the process.

    Checkpoints are renamed into place when they are whole, so the second signal leaves the
    last one as it was. Outside the main thread, where Python allows no handlers, nothing changes.

    Attributes:
      number: the signal that came, or None.
    """

    def __init__(self):
        self.number: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            os.write(sys.stderr.fileno(), b"jtrust: stopped; the last checkpoint is whole\n")
            os._exit(exit_status(number))
        self.number = number


def exit_status(number: int) -> int:
    """What a shell expects of a process that signal `number` stopped."""
    return 128 + number
