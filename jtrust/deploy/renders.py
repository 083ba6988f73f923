"""Pictures of a policy while it trains."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jtrust import checks
from jtrust.deploy.render import render_policy
from jtrust.runs.sinks import IterationInfo, Sink


class Renders(Sink):
    """Every so many iterations an episode of the policy, drawn beside the training.

    It goes to `render-STEP.mp4` in the run's directory, or `.html` where nothing can draw. One that
    is due while the one before is still being drawn is left out; training never waits.

    Args:
      every: iterations.
      note: says something to a person.
      **how: for `render_policy`.
    """

    def __init__(self, every: int, note: Callable[[str], None], **how: Any):
        self._note, self._how = note, {"episodes": 1, **how}
        self._every = checks.whole_number("render_every", every, example=50)
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "render")
        self._pending: concurrent.futures.Future | None = None

    def wants_policy(self, iteration: int) -> bool:
        return iteration % self._every == 0

    def on_iteration(self, info: IterationInfo) -> None:
        if not self.wants_policy(info.iteration) or jax.process_index():
            return  # of several processes the first draws
        if self._pending is not None and not self._pending.done():
            self._note(f"no picture of step {info.step:,}: the one before is still being drawn")
            return
        if info.run_dir is None:
            raise checks.BadArgument("render_every", self._every, "needs a run_dir to write into")
        environment = info.trainer.environment
        self._pending = self._pool.submit(
            self._draw, info.policy(), environment, info.step, info.run_dir
        )

    def on_end(self, info: IterationInfo) -> None:
        if self._pending is not None:
            concurrent.futures.wait([self._pending])

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _draw(self, policy: Any, environment: Any, step: int, run_dir: Path) -> None:
        try:
            found = render_policy(
                policy, environment, run_dir / f"render-{step}",
                heading=f"{environment.name}, {step:,} steps", **self._how,
            )
            self._note(f"drawn: {found['output']}, return {found['return_mean']:.5g}")
        except Exception as error:  # of drivers, codecs and disks; training goes on
            self._note(f"warning: no picture of step {step:,}: {checks.short(str(error))}")
