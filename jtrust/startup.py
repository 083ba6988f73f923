"""What keeps the time from the start to the first iteration short."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keeps Python's garbage collector still.

    Imports and tracing make a million small objects of which most stay; looking through all of
    them again and again took a third of their time.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
