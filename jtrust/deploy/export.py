"""`jtrust.export`: a policy as one file for other programs, checked to act as it was trained."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jtrust import checks
from jtrust.deploy import brax_format, onnx_format, stablehlo_format
from jtrust.deploy.acting import Acting
from jtrust.deploy.alone import check_alone
from jtrust.deploy.contract import describe, finished, units_of
from jtrust.deploy.parity import ExportFailed, Parity, compare, noise_key
from jtrust.deploy.places import beside, contract_of, output_path, put
from jtrust.policy import Policy
from jtrust.runs.evaluate import load_with_config

FORMATS = {"onnx": ".onnx", "stablehlo": ".stablehlo", "brax": ".brax"}

__all__ = ["FORMATS", "ExportFailed", "Exported", "export"]


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
      path: of the file.
      contract_path: of the JSON beside it.
      contract: what that says (docs/do/export.md).
    """

    path: Path
    contract_path: Path
    contract: dict[str, Any]


def export(
    run_dir: str | os.PathLike,
    *,
    format: str,
    output: str | os.PathLike | None = None,
    stochastic: bool = False,
    step: int | str | None = None,
    policy_network: nn.Module | None = None,
    env: Any = None,
) -> Exported:
    """Writes a run's policy as one file, with a contract beside it.

    All between the raw observation and the action that the environment takes is in the file, for
    any size of the batch. It is there only where it acts as the policy does, at 10,000
    observations in a runtime of its own.

    Args:
      run_dir: the run's directory.
      format: "onnx", "stablehlo" or "brax".
      output: the file; by default the name of the run's directory in the current one. An earlier
        export there is replaced; any other file is left.
      stochastic: sample actions, with the noise as a second input; by default their mode.
      step: the checkpoint of this step; by default the newest that can be read.
      policy_network: the run's, where it was given to `train`.
      env: an object that says, in `observation_units` and `action_units`, what numbers stand for.

    Raises:
      BadArgument: as `load_policy`; a format that cannot say the policy; an output that cannot be
        written, or holds something else; parameters that are not finite.
      ExportFailed: the file does not act as the policy does. Nothing is left of it.
    """
    checks.one_of("format", format, FORMATS)
    checks.truth_value("stochastic", stochastic)
    if format == "brax" and stochastic:
        raise checks.BadArgument(
            "stochastic", stochastic,
            "brax's inference function samples by itself, and takes the mode where it is made "
            "with deterministic=True; leave it out",
        )
    path = output_path(run_dir, output, FORMATS[format])
    policy, config, step = load_with_config(run_dir, step, policy_network)
    _check_finite(run_dir, policy)
    acting = Acting.of(policy, stochastic)
    check_alone(acting)
    contract = describe(acting, config, step, format)
    contract["units"] = units_of(env, acting)
    with beside(path) as place:
        file = place / "policy"
        said, parity = _WRITERS[format](file, acting, contract)
        contract = finished({**contract, **said}, file, path.name, parity)
        put(file, contract, path)
    return Exported(path, contract_of(path), contract)


def _check_finite(run_dir: Any, policy: Policy) -> None:
    leaves = jax.tree.leaves((policy.params, policy.statistics))
    if not all(np.all(np.isfinite(x)) for x in leaves):
        raise checks.BadArgument(
            "RUN_DIR", run_dir, "its policy holds NaN or infinity; take an earlier --step"
        )


def _onnx(file: Path, acting: Acting, contract: dict[str, Any]) -> tuple[dict[str, Any], Parity]:
    told = ("policy", "environment", "run", "inputs", "outputs", "action", "units")
    properties = {f"jtrust.{name}": json.dumps(contract[name], default=str) for name in told}
    onnx_format.write(file, acting, properties)
    runtime = onnx_format.Runtime(file)
    return {"opset": onnx_format.OPSET}, compare(acting, runtime.batches, runtime.name)


def _stablehlo(
    file: Path, acting: Acting, contract: dict[str, Any]
) -> tuple[dict[str, Any], Parity]:
    stablehlo_format.write(file, acting)
    runtime = stablehlo_format.Runtime(file)
    said = {"platforms": list(stablehlo_format.PLATFORMS)}
    return said, compare(acting, runtime.batches, runtime.name)


def _brax(file: Path, acting: Acting, contract: dict[str, Any]) -> tuple[dict[str, Any], Parity]:
    brax_format.write(file, acting)
    arguments = brax_format.network_arguments(acting.policy)
    runtime = brax_format.Runtime(file, arguments)
    parity = compare(acting, runtime.batches, runtime.name)
    sampling = brax_format.Runtime(file, arguments, noise_key())
    sampled = compare(
        dataclasses.replace(acting, stochastic=True), sampling.batches, runtime.name
    )
    said: dict[str, Any] = {
        "network": arguments, "clip": [-1.0, 1.0], "sampled_parity": sampled.to_json()
    }
    return said, parity


_WRITERS = {"onnx": _onnx, "stablehlo": _stablehlo, "brax": _brax}
