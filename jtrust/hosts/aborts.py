"""One line for what JAX's distributed runtime ends a process for.

It ends it by abort(), behind lines of its own and a stack: nothing that Python could catch. So what
libraries write goes to a file, and a handler in C's sense of the signal says what it means.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
import shlex
import signal
import sys
import tempfile
from typing import Any, BinaryIO

from jtrust import checks

# Where what libraries write is to stay, in place of a file that goes with the process.
LOG = "JTRUST_LIBRARY_LOG"

_GONE = "another process of this run is gone, and this one stops; {resume}"
# Marks of JAX's errors that tell of a process that is gone.
_MARKS = (
    "gloo", "nccl", "heartbeat", "barrier failed", "socket closed", "unavailable", "connection",
    "coordination service", "unhealthy",
)


@dataclasses.dataclass
class Place:
    """What is known of a process when JAX ends it.

    Attributes:
      address: HOST:PORT at which the first process listens, as far as it is known.
      count: of processes.
      index: of this one.
      seconds: that all have to come.
      together: whether all have come.
      run_dir: what is trained into, once it is known.
      told: the status of a process that has said why it ends.
    """

    address: str = "the coordinator"
    count: int | None = None
    index: int | None = None
    seconds: float = 0.0
    together: bool = False
    run_dir: str | None = None
    told: int | None = None


def meaning(log: str, place: Place) -> tuple[int, str]:
    """(exit status, one line) for what JAX wrote before it ended a process (jax 0.10 to 0.12)."""
    said = re.search(r"absl::Status: (.*)", log)
    text = said.group(1) if said else ""
    if "ALREADY_EXISTS" in text or "different incarnation" in text:
        taken = re.search(r"(\d+) unexpectedly tried", text)
        number = taken.group(1) if taken else place.index
        return 2, (
            f"two processes of this run have the number {number}, or one was started again; give "
            f"each a --process-id of its own, and start all together"
        )
    if unexpected := re.search(r"Unexpected task registered with task=(\d+)", text):
        return 2, (
            f"process {unexpected.group(1)} came, and process 0 was told of fewer; give all the "
            "same --num-processes"
        )
    if not place.together and ("DEADLINE_EXCEEDED" in text or "UNAVAILABLE" in text):
        return 1, not_all_came(place)
    if text:
        return 1, gone(place)
    lines = [line for line in log.splitlines() if line.strip()]
    # Behind a failed check of JAX's come the lines of a stack.
    lines = [line for line in lines if re.match(r"F\d{4} ", line)] or lines
    return 1, f"JAX ended the process: {lines[-1][:300] if lines else 'it did not say why'}"


def not_all_came(place: Place) -> str:
    count = f"all {place.count}" if place.count else "all"
    return f"not {count} processes came to {place.address} within {place.seconds:.0f} s"


def gone(place: Place) -> str:
    if place.run_dir is None:
        return _GONE.format(resume="start all again")
    command = f"jtrust resume {shlex.quote(place.run_dir)}"
    return _GONE.format(resume=f"go on from the last checkpoint: {command}")


def of_another(error: BaseException) -> str | None:
    """What JAX or Orbax say where another process of the run is missing; None for other errors."""
    while error is not None:
        text = str(error).strip()
        known = type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError", "ValueError")
        if known and any(mark in text.lower() for mark in _MARKS):
            return text.partition("\n")[0][:200]
        error = error.__cause__  # type: ignore[assignment]
    return None


class Diverted:
    """Leads what libraries write into a file and answers aborts, from when it is made on.

    Python's own standard streams stay where they were.
    """

    def __init__(self, place: Place):
        sys.stdout.flush()
        sys.stderr.flush()
        self._place = place
        out, self._error = os.dup(1), os.dup(2)
        self._log = _log_file()
        os.dup2(self._log.fileno(), 1)
        os.dup2(self._log.fileno(), 2)
        _lead(sys.stdout, out)
        _lead(sys.stderr, self._error)
        # Kept: C calls it as long as the process lives.
        self._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._answer)
        ctypes.CDLL(None).signal(signal.SIGABRT, self._handler)

    def _answer(self, _: int) -> None:
        status = 1 if self._place.told is None else self._place.told
        try:
            if self._place.told is not None:
                return
            size = os.fstat(self._log.fileno()).st_size
            log = os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")
            status, line = meaning(log, self._place)
            os.write(self._error, f"jtrust: {line}\n".encode())
        finally:
            os._exit(status)


def _log_file() -> BinaryIO | Any:
    if path := os.environ.get(LOG):
        try:
            return open(f"{path}.{os.getpid()}", "w+b", buffering=0)
        except OSError as error:
            raise checks.BadArgument(
                LOG, path, f"cannot be written ({error.strerror}); name a file that can"
            ) from error
    return tempfile.TemporaryFile(buffering=0)


def _lead(stream: Any, descriptor: int) -> None:
    """Has a standard stream of Python's write to a descriptor."""
    file = os.fdopen(descriptor, "w", buffering=1, encoding=stream.encoding, errors=stream.errors)
    if hasattr(stream, "lead_to"):  # `console.forgiving`'s
        stream.lead_to(file)
    elif stream is sys.stdout:
        sys.stdout = file
    else:
        sys.stderr = file
