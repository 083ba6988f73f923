"""An iteration as a program for devices that need not be here."""

from __future__ import annotations

import dataclasses
import re
import time
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from jtrust.training import Trainer
from jtrust.training.memory import at_its_highest, parts_of_memory
from jtrust.training.mesh import STATE_SPEC

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program, and what it needs of one device.

    Attributes:
      text: the program as XLA left it.
      seconds: tracing, lowering and compiling.
      memory: bytes of arguments, outputs, temporaries, and of what outputs share with arguments.
      refused: XLA's reason, where it found no way to put the program on the device; then `text`
        is empty.
      needed: bytes that XLA says it would have needed, then; None where it does not say.
    """

    text: str
    seconds: float
    memory: dict[str, int]
    refused: str = ""
    needed: int | None = None

    @property
    def memory_bytes(self) -> int | None:
        """What it holds at its highest, bytes; None where XLA refused it and says no number."""
        if self.refused:
            return self.needed
        return at_its_highest(self.memory)


def compile_iteration(trainer: Trainer) -> Compiled:
    """Compiles `trainer.iterate` as a run does, for the trainer's devices. Nothing runs."""
    state = jax.eval_shape(trainer.init, jax.random.key(0))
    state = jax.tree.map(
        lambda spec, part: _placed(part, NamedSharding(trainer.mesh, spec)), STATE_SPEC, state,
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )
    start = time.perf_counter()
    lowered = jax.jit(trainer.iterate, donate_argnums=0).lower(state)
    return compile_lowered(lowered, start)


def compile_lowered(lowered: Any, start: float) -> Compiled:
    """Compiles what `jax.jit(...).lower(...)` gave, begun at `start` of `time.perf_counter`."""
    try:
        program = lowered.compile()
    except RuntimeError as error:
        said = " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" not in said:
            raise
        return Compiled("", time.perf_counter() - start, {}, said, _needed(said))
    seconds = time.perf_counter() - start
    return Compiled(program.as_text(), seconds, parts_of_memory(program))


def _placed(part: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), part
    )


def _needed(said: str) -> int | None:
    """The bytes in XLA's words, such as `Used 20.5G of 15.75G hbm` or `(256.03G) exceeds`."""
    found = re.search(r"Used ([\d.]+)([KMGT]?)i?B? of", said) or re.search(
        r"\(([\d.]+)([KMGT]?)i?B?\) exceeds", said
    )
    return int(float(found.group(1)) * _UNITS[found.group(2)]) if found else None
