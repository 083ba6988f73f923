"""`jtrust export RUN_DIR --format FORMAT`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, Positional, arg

from jtrust import checks
from jtrust.cli.parsing import chosen_step, parse


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """A run's policy as one file for other programs, checked to act as it was trained."""

    run_dir: Annotated[Positional[str], arg(metavar="RUN_DIR")]
    """Directory of the run."""
    format: str
    """onnx (ONNX Runtime), stablehlo (jax.export: CPU, CUDA and TPU) or brax (brax's PPO)."""
    output: str | None = None
    """The file; by default the name of the run's directory, in the current directory. Its contract
    goes beside it, with .json behind the name. An earlier export is replaced, no other file is."""
    stochastic: bool = False
    """Sample actions, with the noise as a second input; by default the policy's mode."""
    step: int | None = None
    """The checkpoint of this step; by default the newest."""
    best: Annotated[bool, FlagCreatePairsOff] = False
    """The checkpoint that --keep-best kept."""
    json: bool = False
    """Print the contract as one JSON object on standard output and nothing else there."""


def run(args: Sequence[str]) -> int:
    from jtrust.deploy.export import export

    options = parse(ExportOptions, "export", args)
    with _ended_in_order():
        found = export(
            options.run_dir, format=options.format, output=options.output,
            stochastic=options.stochastic, step=chosen_step(options),
        )
    if options.json:
        print(json.dumps({"path": str(found.path), **found.contract}, default=str))
    else:
        print(checks.printable(_sentence(found)))
    return 0


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Has SIGTERM take away what is under way, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _sentence(found: Any) -> str:
    """What was written, and how near it is."""
    contract = found.contract
    run, parity = contract["run"], contract["parity"]
    what = "logits" if len(contract["outputs"]) > 1 else "the action range"
    return (
        f"{found.path}: the {contract['policy']} of {run['algorithm']} on "
        f"{contract['environment']['name']} after {run['step']:,} steps, within "
        f"{parity['largest_difference']:.1e} of {what} at {parity['observations']:,} observations "
        f"in {parity['runtime']}; {found.contract_path} says what goes in and out"
    )
