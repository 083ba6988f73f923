"""What the command line says, to whatever there is to say it to.

A pipe that nobody reads any more, a terminal that is gone, a stream that was closed before the
start and an encoding without the letters are no reason to leave work undone, or to fail when it is
done.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

# Where a letter cannot be encoded, what says the same.
_PLAIN = str.maketrans({"±": "+/-", "×": "x", "²": "^2", "…": "...", "–": "-", "→": "->"})


@contextlib.contextmanager
def forgiving() -> Iterator[None]:
    """Has standard output and standard error take what they can, while entered."""
    _occupy_standard_files()
    before = sys.stdout, sys.stderr
    sys.stdout = _Forgiving(before[0], only_pipes=True)
    sys.stderr = _Forgiving(before[1], only_pipes=False)
    try:
        yield
        sys.stdout.flush()
    finally:
        # Where something else was put in their place meanwhile, that is not taken away.
        ours = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = before
        for stream in ours:
            with contextlib.suppress(Exception):
                stream.flush()


class _Forgiving:
    """A text stream that writes what cannot be encoded otherwise, and loses what nobody reads.

    Args:
      stream: where it goes; None for nowhere.
      only_pipes: lose words only where their reader has gone away; else on any failure.
    """

    def __init__(self, stream: Any, only_pipes: bool):
        self._stream = open(os.devnull, "w", encoding="utf-8") if stream is None else stream  # noqa: SIM115
        self._lost = BrokenPipeError if only_pipes else (OSError, ValueError)

    def write(self, text: str) -> int:
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                plain = text.translate(_PLAIN).encode(error.encoding, "backslashreplace")
                self._stream.write(plain.decode(error.encoding))
        except self._lost:
            self._silence()
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except self._lost:
            self._silence()

    def lead_to(self, stream: Any) -> None:
        """Writes to another stream from now on."""
        self._stream = stream

    def _silence(self) -> None:
        """Leads everything that follows nowhere, what libraries write themselves included."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _occupy_standard_files() -> None:
    """Opens the standard files that were closed, so that no file of a run takes their numbers.

    What a library writes to standard error would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is the one that is given.
            os.open(os.devnull, os.O_RDWR)
