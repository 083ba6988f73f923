#!/usr/bin/env python3
"""Exports of the policies that ship with jtrust: docs/evidence/export/tables.md.

    python scripts/benchmarks/export.py [--repeats 9] [--jax2onnx FOLDER]

How near each file is to its policy, over the 10,000 observations of an export; how long an action
takes in ONNX Runtime (one thread) beside the policy's own call, in turn, medians; and what
CartpoleBalance returns in MuJoCo's own simulator by examples/mujoco_policy.py. With --jax2onnx also
what jax2onnx makes of them. It asks for an older Orbax than jtrust, so it goes into a folder apart:
pip install --no-deps --target FOLDER jax2onnx onnx-ir einops sympy mpmath
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# From here, wherever this is called: modules of scripts/ are found by their whole names.
ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

import jax
import numpy as np

import jtrust
from jtrust.deploy.acting import Acting
from jtrust.deploy.export import FORMATS
from jtrust.deploy.onnx_format import Runtime
from jtrust.deploy.parity import ExportFailed, compare, observations_for
from jtrust.deploy.stablehlo_format import PLATFORMS
from scripts.benchmarks.installed import described
from scripts.benchmarks.timing import in_turn

PAGE = ROOT / "docs/evidence/export/tables.md"
PRETRAINED = ROOT / "checkpoints" / "pretrained"
CALLS = {1: 200, 4096: 5}  # by the size of the batch: calls that are timed as one
EPISODES = 64


def names() -> list[str]:
    return sorted(path.parent.name for path in PRETRAINED.glob("*/card.json"))


def parities(place: Path) -> Iterator[str]:
    """Rows: how near each file is to its policy."""
    for name in names():
        for stochastic in (False, True):
            for format in FORMATS:
                yield _parity(place, name, format, stochastic)


def _parity(place: Path, name: str, format: str, stochastic: bool) -> str:
    what = "sample" if stochastic else "mode"
    file = place / f"{name}-{what}{FORMATS[format]}"
    if format == "brax" and stochastic:  # beside the mode, in the same file
        return ""
    try:
        contract = jtrust.export(
            PRETRAINED / name, format=format, output=file, stochastic=stochastic
        ).contract
    except jtrust.BadArgument as error:
        return _row(name, format, what, error.remedy, "", "", "")
    rows = [_row(name, format, what, *_figures(contract["parity"]), f"{file.stat().st_size:,}")]
    if format == "brax":
        figures = _figures(contract["sampled_parity"])
        rows.append(_row(name, format, "sample", *figures, "the same"))
    return "\n".join(rows)


def _figures(parity: dict[str, Any]) -> tuple[str, str, str]:
    far = f"{parity['rounding']} ({parity['rounding_difference']:.1e})" if (
        parity["rounding"]
    ) else "0"
    return f"{parity['largest_difference']:.1e}", far, str(parity["other_choices"])


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def microseconds(functions: dict[str, Callable[[], Any]], batch: int, repeats: int) -> list[float]:
    """Of one call of each function, medians."""
    calls = CALLS[batch]

    def many(function: Callable[[], Any]) -> Callable[[], Any]:
        def called() -> None:
            for _ in range(calls):
                jax.block_until_ready(function())
        return called

    found = in_turn({name: many(f) for name, f in functions.items()}, repeats)
    return [1e6 * statistics.median(found[name]) / calls for name in functions]


def times(place: Path, repeats: int, others: bool) -> Iterator[str]:
    """Rows: microseconds a call."""
    for name in names():
        policy = jtrust.load_policy(PRETRAINED / name)
        runtimes = {"ours": Runtime(place / f"{name}-mode.onnx")}
        if others and (place / f"{name}-jax2onnx.onnx").exists():
            runtimes["theirs"] = Runtime(place / f"{name}-jax2onnx.onnx")
        for batch in CALLS:
            drawn = observations_for(Acting.of(policy, False))["drawn from the statistics"]
            x = np.ascontiguousarray(drawn[:batch])
            # What comes right behind the policy's call finds JAX's threads still awake.
            functions: dict[str, Callable[[], Any]] = {
                kind: (lambda runtime=runtime, x=x: runtime(x))
                for kind, runtime in {"settling": runtimes["ours"], **runtimes}.items()
            }
            functions["policy"] = lambda policy=policy, x=x: policy(x)
            found = dict(zip(functions, microseconds(functions, batch, repeats), strict=True))
            cells = [name, f"{batch:,}", f"{found['ours']:.1f}", f"{found['policy']:.1f}",
                     f"{found['policy'] / found['ours']:.1f}"]
            if others:
                cells.append(f"{found['theirs']:.1f}" if "theirs" in found else "-")
            yield _row(*cells)


def of_jax2onnx(place: Path) -> Iterator[str]:
    """Rows: what jax2onnx makes of the same policies, by the same comparison."""
    import onnx
    from jax2onnx import to_onnx

    for name in names():
        policy = jtrust.load_policy(PRETRAINED / name)
        acting = dataclasses.replace(Acting.of(policy, False), logits=None)
        file = place / f"{name}-jax2onnx.onnx"

        def act(x: Any, policy: Any = policy) -> Any:
            found = policy.distribution(policy.params, policy.statistics, x)
            return policy.to_environment(found.mode())

        size = policy.statistics.mean.shape[0]
        onnx.save(to_onnx(act, inputs=[("B", size)], model_name=name), file)
        try:
            said = _figures(compare(acting, Runtime(file).batches, "jax2onnx").to_json())
        except ExportFailed as error:
            said = (str(error), "", "")
        ours, theirs = (
            len(onnx.load(path).graph.node) for path in (place / f"{name}-mode.onnx", file)
        )
        yield _row(name, *said[:2], str(theirs), str(ours))


def in_mujoco(place: Path) -> Iterator[str]:
    """Rows: what CartpoleBalance returns at home and in MuJoCo's own simulator."""
    home = jtrust.evaluate(PRETRAINED / "CartpoleBalance", episodes=EPISODES)
    spec = importlib.util.find_spec("mujoco_playground")
    model = Path(str(spec and spec.origin)).parent / "_src/dm_control_suite/xmls/cartpole.xml"
    said = subprocess.run(
        [sys.executable, ROOT / "examples" / "mujoco_policy.py",
         place / "CartpoleBalance-mode.onnx", model, "--no-viewer", "--episodes", str(EPISODES)],
        check=True, capture_output=True, text=True,
    ).stdout
    away = [float(line.split()[1]) for line in said.splitlines()]
    yield _row("`jtrust evaluate`", f"{home['return_mean']:.2f}", f"{home['return_std']:.2f}")
    yield _row("`examples/mujoco_policy.py`", f"{statistics.mean(away):.2f}",
               f"{statistics.pstdev(away):.2f}")
    yield _row("of that at home", f"{statistics.mean(away) / home['return_mean']:.5f}", "")


def page(place: Path, repeats: int, others: bool) -> str:
    rule = lambda n: _row(*["---"] * n)  # noqa: E731
    packages = ("jax", "brax", "onnx", "onnxruntime", "mujoco", *(["jax2onnx"] if others else []))
    lines = [
        "# Exported policies", "",
        f"Made by `python scripts/benchmarks/export.py{' --jax2onnx FOLDER' if others else ''}`; "
        f"{described(*packages)}. "
        "What is compared and how: [export.md](../../do/export.md#parity).", "",
        "## Parity", "",
        "Largest difference over 10,000 observations, as a share of the action range (of logits "
        "for CartPole, whose actions are discrete); observations at which the policy itself "
        "follows the last bits, with the largest difference at those. StableHLO files are for "
        f"{', '.join(PLATFORMS)}; they were run on a CPU.", "",
        _row("policy", "format", "", "largest difference", "far out, by rounding",
             "other choices", "bytes"), rule(7),
        *(row for row in parities(place) if row), "",
    ]
    if others:
        lines += [
            "## Beside jax2onnx", "",
            "Its files of the same functions, by the same comparison.", "",
            _row("policy", "largest difference", "far out, by rounding", "its nodes", "ours"),
            rule(5), *of_jax2onnx(place), "",
        ]
    cells = ["policy", "batch", "ONNX Runtime", "the policy's own call", "ratio"]
    lines += [
        "## Time", "",
        "Microseconds a call, the policy's on JAX's CPU device, ONNX Runtime's with one thread; of "
        "a small machine that had other work, so look at ratios.", "",
        _row(*cells, *(["jax2onnx's file"] if others else [])), rule(5 + others),
        *times(place, repeats, others), "",
        "## Away from home", "",
        f"CartpoleBalance, {EPISODES} whole episodes: Playground's own environment in JAX, and the "
        "ONNX file with numpy in MuJoCo's C simulator.", "",
        _row("", "return", "deviation"), rule(3), *in_mujoco(place), "",
    ]
    return "\n".join(lines)


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--jax2onnx", metavar="FOLDER", help="where jax2onnx was put")
    options = parser.parse_args(args)
    if options.jax2onnx:
        sys.path.append(options.jax2onnx)
    with tempfile.TemporaryDirectory() as place:
        text = page(Path(place), options.repeats, bool(options.jax2onnx))
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
