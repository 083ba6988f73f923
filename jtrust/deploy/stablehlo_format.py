"""`--format stablehlo`: what `jax.export` writes, for CPUs, CUDA GPUs and TPUs at once."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from jtrust import checks
from jtrust.deploy.acting import Acting
from jtrust.deploy.parity import ExportFailed

PLATFORMS = ("cpu", "cuda", "tpu")
_CHILD = Path(__file__).with_name("without_jtrust.py")


def write(path: Path, acting: Acting) -> None:
    """Writes a policy; parameters stand in the program, products at the precision of the network.

    Raises:
      BadArgument: a network that cannot be traced for any size of the batch.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((batch, *x.shape), x.dtype) for x in acting.inputs]
    try:
        found = jax.export.export(jax.jit(acting.__call__), platforms=PLATFORMS)(*shapes)
    except Exception as error:  # a module of the user's own raises what it likes
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise checks.BadArgument(
            "format", "stablehlo",
            f"the network cannot be traced for any size of the batch: {type(error).__name__}: "
            f"{said}; let it do the same whatever the batch's size",
        ) from error
    path.write_bytes(found.serialize())


class Runtime:
    """A file in a process of its own, with JAX and without jtrust.

    Args:
      path: of the file.
    """

    def __init__(self, path: Path):
        self._path = path
        self.name = f"jax.export {jax.__version__}"

    def batches(self, batches: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
        """The outputs of several batches, from one process."""
        with tempfile.TemporaryDirectory(prefix="jtrust-") as place:
            given, told = Path(place) / "given.npz", Path(place) / "told.npz"
            inputs: dict[str, Any] = {
                f"{i}_{j}": x for i, batch in enumerate(batches) for j, x in enumerate(batch)
            }
            np.savez(given, **inputs)
            self._run(given, told)
            with np.load(told) as found:
                names = sorted(found.files, key=lambda name: tuple(map(int, name.split("_"))))
                outputs: list[list[np.ndarray]] = [[] for _ in batches]
                for name in names:
                    outputs[int(name.split("_")[0])].append(found[name])
        return outputs

    def _run(self, given: Path, told: Path) -> None:
        # -P: what lies in the current directory hides no package.
        command = [sys.executable, "-P", str(_CHILD), str(self._path), str(given), str(told)]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        process = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        if process.returncode:
            said = (process.stderr.strip().splitlines() or ["it ended without a word"])[-1][:300]
            raise ExportFailed(f"{self.name} does not run what was exported: {said}")
