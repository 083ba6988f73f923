"""Checkpoints on their way to the disk while training goes on, and the clock beside them."""

from __future__ import annotations

import time

from jtrust.runs.checkpoints import CheckpointWriter
from jtrust.runs.progress import Progress
from jtrust.training import TrainState


class Saver:
    """Checkpoints on their way; one that fails is told of, and the next one tried."""

    def __init__(self, writer: CheckpointWriter, progress: Progress, last: int):
        self._writer, self._progress, self._last = writer, progress, last

    def save(self, step: int, state: TrainState) -> None:
        try:
            self._writer.save(step, state)
        except OSError as error:
            self._progress.note(f"warning: {error}; training goes on")
            self._writer.save(step, state)
        self._last = step

    def finish(self, step: int, state: TrainState) -> None:
        if step != self._last:
            self.save(step, state)
        self._writer.wait()


class Clock:
    """Seconds since the start, and the rate between two readings."""

    def __init__(self, steps: int):
        self._steps, self._start = steps, time.perf_counter()
        self._last = self._start

    def read(self) -> dict[str, float]:
        now = time.perf_counter()
        rate = self._steps / max(now - self._last, 1e-9)
        self._last = now
        return {"time/seconds": now - self._start, "time/steps_per_second": rate}
