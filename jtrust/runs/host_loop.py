"""The loop on the host: iterations dispatched ahead, and their metrics handed to sinks."""

from __future__ import annotations

import collections
import dataclasses
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jtrust.hosts.stopping import Stopping
from jtrust.runs.evaluation import Evaluation, without
from jtrust.runs.metrics import to_row
from jtrust.runs.sinks import IterationInfo, Sink
from jtrust.training import Trainer, TrainState
from jtrust.training.mesh import compiler_options

# Iterations dispatched before the metrics of the oldest are read: the device always has the next.
AHEAD = 2


@jax.jit
def copied(tree: Any) -> Any:
    """A copy on the device, made as soon as it gets to it: what is copied may be donated then."""
    return jax.tree.map(jnp.copy, tree)


def trace_iteration(trainer: Trainer, state: TrainState) -> jax.stages.Lowered | _Uncompiled:
    """The program of an iteration, to be compiled; what it is given, it overwrites."""
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        return _Uncompiled(trainer.iterate)
    return jax.jit(
        trainer.iterate, donate_argnums=0, compiler_options=compiler_options(trainer.mesh)
    ).lower(state)


@dataclasses.dataclass(frozen=True)
class _Uncompiled:
    """Stands for a program where JAX_DISABLE_JIT says that nothing is to be compiled."""

    function: Callable

    def compile(self) -> Callable:
        return self.function


class Clock:
    """Seconds since the start, and the rate over the last readings.

    Metrics are read behind the device, several in a row where the host was busy (a checkpoint) or
    the run ends: between two of them hardly any time passes, so the rate is over `_READINGS`. The
    first reading, which holds compilation, is in the rate of the first iteration alone.
    """

    _READINGS = 8

    def __init__(self, steps: int):
        self._steps, self._start = steps, time.perf_counter()
        self._last: collections.deque[float] = collections.deque(maxlen=self._READINGS)

    def read(self) -> dict[str, float]:
        """{"time/seconds", "time/steps_per_second"}."""
        now = time.perf_counter()
        since, count = (self._last[0], len(self._last)) if self._last else (self._start, 1)
        self._last.append(now)
        rate = count * self._steps / max(now - since, 1e-9)
        return {"time/seconds": now - self._start, "time/steps_per_second": rate}


class HostLoop:
    """Iterates, and tells sinks.

    Args:
      trainer: what is trained.
      iterate: its compiled iteration.
      sinks: told of each iteration, one behind the other.
      clock: of the run.
      stopping: whether to go on.
      evaluation: of the policy while it trains, or None.
      run_dir: where the run is kept, or None.
    """

    def __init__(
        self, trainer: Trainer, iterate: Callable[[TrainState], tuple], sinks: Sequence[Sink],
        clock: Clock, stopping: Stopping, evaluation: Evaluation | None = None,
        run_dir: Path | None = None,
    ):
        self._evaluation, self._run_dir = evaluation, run_dir
        self._trainer, self._iterate, self._sinks = trainer, iterate, sinks
        self._clock, self._stopping = clock, stopping

    def run(self, state: TrainState, done: int, total: int) -> TrainState:
        """The state after iteration `total`, or an earlier one where the run was stopped.

        Args:
          state: after iteration `done`; overwritten.
          done, total: iterations.
        """
        pending: collections.deque = collections.deque()
        iteration, row = done, {}
        while iteration < total and self._stopping.goes_on(iteration):
            state, metrics = self._iterate(state)
            iteration += 1
            copies = self._copies(iteration, state)
            pending.append((iteration, metrics, *copies, self._evaluated(iteration, copies[1])))
            if len(pending) > AHEAD:
                row = self._tell(*pending.popleft())
        while pending:
            row = self._tell(*pending.popleft())
        info = self._info(iteration, row, state, _acting(state))
        for sink in self._sinks:
            sink.on_end(info)
        return state

    def _copies(self, iteration: int, state: TrainState) -> tuple[Any, Any]:
        """(the state, what the policy is made of) for sinks; the state itself is overwritten."""
        # Each is asked, whatever others say.
        states = [sink.wants_state(iteration) for sink in self._sinks]
        policies = [sink.wants_policy(iteration) for sink in self._sinks]
        policies.append(self._is_evaluated(iteration))
        if any(states):
            state = copied(state)
            return state, _acting(state)
        if any(policies):
            return None, copied(_acting(state))
        return None, None

    def _is_evaluated(self, iteration: int) -> bool:
        return self._evaluation is not None and self._evaluation.wanted(iteration)

    def _evaluated(self, iteration: int, acting: Any) -> dict[str, Any]:
        """What an evaluation gives, on its way; nothing where the run has none."""
        if self._evaluation is None:
            return {}
        if self._is_evaluated(iteration):
            return self._evaluation.start(acting)
        return without(self._trainer.environment.costs)

    def _tell(
        self, iteration: int, metrics: Any, state: TrainState | None, acting: Any,
        evaluated: dict[str, Any],
    ) -> dict:
        row = to_row({
            "step": iteration * self._trainer.steps_per_iteration, "iteration": iteration,
            **jax.device_get(metrics), **jax.device_get(evaluated), **self._clock.read(),
        })
        info = self._info(iteration, row, state, acting)
        for sink in self._sinks:
            sink.on_iteration(info)
        return row

    def _info(self, iteration: int, row: dict, state: Any, acting: Any) -> IterationInfo:
        step = iteration * self._trainer.steps_per_iteration
        shown = types.MappingProxyType(row)
        end = self._stopping.end
        return IterationInfo(
            iteration, step, shown, self._trainer, end, state, acting, self._run_dir
        )


def _acting(state: TrainState) -> tuple[Any, Any]:
    return state.policy, state.observation_statistics
