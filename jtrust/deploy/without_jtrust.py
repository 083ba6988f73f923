"""Runs an exported program where jtrust cannot be imported: FILE, inputs and outputs as .npz.

Run as a script, and written so that nothing but JAX and numpy is needed.
"""

import sys
from typing import Any

sys.modules["jtrust"] = None  # type: ignore[assignment]  # `import jtrust` raises from here on

import jax.export  # noqa: E402
import numpy as np  # noqa: E402


def main(file: str, given: str, told: str) -> None:
    with open(file, "rb") as stream:
        policy = jax.export.deserialize(bytearray(stream.read()))
    batches: dict[int, list[np.ndarray]] = {}
    with np.load(given) as inputs:
        for name in inputs.files:  # in the order in which they were saved
            batches.setdefault(int(name.split("_")[0]), []).append(inputs[name])
    found: dict[str, Any] = {}
    for i, batch in batches.items():
        for j, x in enumerate(policy.call(*batch)):
            found[f"{i}_{j}"] = np.asarray(x)
    np.savez(told, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
