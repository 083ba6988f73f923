"""SIGINT and SIGTERM: finish the iteration in hand, or, the second time, stop at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_Handler = Callable[[int, FrameType | None], Any] | int | None


class StopRequest:
    """While entered, the first signal is only noted, in `number`; a second one stops at once.

    Checkpoints are renamed into place when they are whole, so the second signal leaves the
    last one as it was. Outside the main thread, where Python allows no handlers, nothing changes.

    Args:
      hand_on: on leaving, hand the signal on to whoever handled it before: Python's own handler
        raises KeyboardInterrupt, SIGTERM's default ends the process, and a user's handler is
        called. So is a second signal, where it comes. False: it is for the caller to act on
        `number`, and a second signal ends the process.

    Attributes:
      number: the signal that came, or that all processes of the run stop for; None without one.
    """

    def __init__(self, hand_on: bool = False):
        self.number: int | None = None
        self._hand_on, self._heard = hand_on, False
        self._previous: dict[int, _Handler] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # One that is not Python's could not be put back.
                if signal.getsignal(number) is not None:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        self._put_back()
        if self._hand_on and self.number is not None:
            signal.raise_signal(self.number)

    def _put_back(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self._heard:  # of this process's own: others may have set the number
            self._heard = True
            self.number = number if self.number is None else self.number
            return
        if self._hand_on:
            self._put_back()
            self._hand_on = number != self.number  # the same has then been heard
            signal.raise_signal(number)
            return
        with contextlib.suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), b"jtrust: stopped; the last checkpoint is whole\n")
        os._exit(exit_status(number))


def exit_status(number: int) -> int:
    """What a shell expects of a process that signal `number` stopped."""
    return 128 + number
