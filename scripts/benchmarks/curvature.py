"""Kronecker factors of the Fisher matrix as a preconditioner of TRPO's conjugate gradients.

    python scripts/benchmarks/curvature.py             # rows not there yet, then the tables
    python scripts/benchmarks/curvature.py --page      # the tables alone, of what there is

For each task and network: a policy that TRPO has trained for some iterations, one more batch of
its own, and the system (F + 0.1 I) x = g that TRPO solves there. Asked is how many products with F
it takes to come as near as ten plain iterations do, by the residual and by the quadratic model,
with K-FAC (`kronecker.py`) as preconditioner; and the milliseconds of that here, with building the
factors, and its launches compiled for an H100, not run. Writes docs/evidence/curvature/tables.md.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# From here, wherever this is called: modules of scripts/ are found by their whole names.
sys.path[0] = str(ROOT)
from scripts.benchmarks import kept_rows

os.environ["JAX_PLATFORMS"] = "cpu"

DATA, PAGE = ROOT / "docs/evidence/curvature", ROOT / "docs/evidence/curvature/tables.md"
DAMPING, PLAIN, STRIDE, ITERATIONS = 0.1, 10, 4, 30
TASKS = {"hopper": "spring", "ant": "spring"}
NETWORKS = ((256, 256), (512, 256, 128))
KINDS = {
    "plain": "none", "exact": "K-FAC by eigenvectors, exact G",
    "sampled": "K-FAC by eigenvectors, sampled G", "inverses": "K-FAC by inverses, sampled G",
}
# States of the program for an H100: 4096 environments x 64 steps, every fourth of them.
STATES = 4096 * 64 // STRIDE


@dataclasses.dataclass(frozen=True)
class Row:
    """One system."""

    task: str
    layers: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.task}--{'x'.join(map(str, self.layers))}"

    @property
    def path(self) -> Path:
        return DATA / f"{self.name}.json"


def trained(row: Row) -> tuple[Any, Any, Any]:
    """(network, parameters, batch): a policy after ITERATIONS of TRPO, and what it did next."""
    import jax

    import jtrust
    from jtrust.training.mesh import REPLICATED, STATE_SPEC, per_shard
    from jtrust.training.random_keys import environment_keys

    trainer = jtrust.make_trainer(
        jtrust.make_env(f"brax/{row.task}", backend=TASKS[row.task]),
        jtrust.TRPO(damping=DAMPING, cg_iterations=PLAIN, fisher_stride=STRIDE), num_envs=64,
        network=jtrust.NetworkConfig(policy_layers=row.layers), devices=1,
    )
    iterate = jax.jit(trainer.iterate, donate_argnums=0)
    state = trainer.init(jax.random.key(0))
    for _ in range(ITERATIONS):
        state, _ = iterate(state)

    def next_batch(state):
        keys = environment_keys(state, trainer.collection.envs_per_device)
        state, trajectory, _ = trainer.collection(state, keys)
        estimates = trainer.estimation(state, trajectory)
        state, batch, _ = trainer.preparation(state, trajectory, estimates, keys)
        return state.policy, batch

    policy, batch = jax.jit(per_shard(
        next_batch, trainer.mesh, (STATE_SPEC,), (REPLICATED, REPLICATED)
    ))(state)
    return trainer.policy_network, policy, batch


def programs(network: Any) -> dict[str, Callable[..., Any]]:
    """What is timed and compiled: (params, g, states, key, iterations) -> what `solve` gives."""
    from jtrust.trust_region import fisher_operator
    from scripts.benchmarks.kronecker import factors, preconditioner, solve

    def solution(params, b, x, key, iterations, kind):
        matvec = fisher_operator(lambda p: network(p, x), params, DAMPING)
        if kind == "plain":
            return solve(matvec, b, iterations)
        of_layers = factors(params, x, key, kind == "exact")
        return solve(
            matvec, b, iterations,
            preconditioner(params, of_layers, DAMPING, by_eigenvectors=kind != "inverses"),
        )

    return {kind: lambda *given, kind=kind: solution(*given, kind) for kind in KINDS}


def first_within(values: Any, limit: float, sign: float) -> int | None:
    """The number of iterations after which a value is as good as a limit; None for never."""
    return next((i + 1 for i, v in enumerate(values) if sign * v <= sign * limit), None)


def measure(row: Row) -> dict[str, Any]:
    """The figures of one row."""
    import jax
    import numpy as np

    from jtrust.algorithms.batch import flatten_time
    from jtrust.algorithms.surrogate import Surrogate
    from scripts.benchmarks.kronecker import means

    network, params, batch = trained(row)
    x = flatten_time(batch.observation[::STRIDE])
    np.testing.assert_allclose(
        means(params["params"]["mlp"], x)[0], network(params, x).mean, rtol=1e-4, atol=1e-5
    )
    b = jax.jit(lambda p: Surrogate(p, network, batch, 0.003, None).gradient())(params)
    key, ways = jax.random.key(1), programs(network)
    found: dict[str, Any] = {"states": x.shape[0], "parameters": sum(
        leaf.size for leaf in jax.tree.leaves(params)
    )}
    curves = {
        kind: [np.asarray(c) for c in jax.jit(way, static_argnums=4)(
            params, b, x, key, 3 * PLAIN)[1:]] for kind, way in ways.items()
    }
    best = max(float(gains.max()) for _, gains in curves.values())
    residual, gain = (float(c[PLAIN - 1]) for c in curves["plain"])
    for kind, (residuals, gains) in curves.items():
        one = found[kind] = {
            "residual": [float(f"{r:.4g}") for r in residuals[:PLAIN]],
            "gain": [float(f"{g / best:.6g}") for g in gains[:PLAIN]],
            "products": first_within(residuals, residual, 1.0),
            "products_by_gain": first_within(gains, gain * 0.99999, -1.0),
        }
        if kind == "exact":  # for comparison: it costs a backward pass for each dimension
            continue
        for count, behind in ((one["products"], ""), (one["products_by_gain"], "_by_gain")):
            if count is not None:
                one["milliseconds" + behind] = milliseconds(ways[kind], (params, b, x, key, count))
                one["launches" + behind] = launches(ways[kind], params, b, x, count)
    return found


def milliseconds(way: Callable[..., Any], given: tuple, repeats: int = 7) -> float:
    """Of all cores together, so that what else the machine does counts for little; the least."""
    import jax

    program = jax.jit(lambda *a: way(*a, given[-1])[0])
    jax.block_until_ready(program(*given[:-1]))
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        jax.block_until_ready(program(*given[:-1]))
        taken.append(time.process_time() - start)
    return round(1e3 * min(taken), 1)


def launches(way: Callable[..., Any], params: Any, b: Any, x: Any, iterations: int) -> int | None:
    """Of the solution for STATES states on an H100; None where its compiler is not installed."""
    import jax
    from jax.sharding import SingleDeviceSharding

    from jtrust import checks
    from jtrust.planning.compilation import compile_lowered
    from jtrust.planning.launches import count_launches
    from jtrust.planning.targets import devices_of, find_target

    try:
        placed = SingleDeviceSharding(devices_of(find_target("h100"))[0])
    except checks.BadArgument:
        return None
    given = (params, b, jax.ShapeDtypeStruct((STATES, x.shape[1]), x.dtype), jax.random.key(0))
    shapes = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=placed), given
    )
    lowered = jax.jit(lambda *a: way(*a, iterations)[0]).lower(*shapes)
    return count_launches(compile_lowered(lowered, time.perf_counter()).text).total


def make_page() -> None:
    rows = [(r, json.loads(r.path.read_text())) for r in all_rows() if r.path.exists()]
    lines = [
        "# Conjugate gradients with Kronecker factors", "",
        "Written by `python scripts/benchmarks/curvature.py`: products with the Fisher matrix "
        f"until the residual is that of {PLAIN} plain iterations (damping {DAMPING}), and until "
        "the quadratic model gains as much; milliseconds of CPU time and launches on an H100 "
        "(compiled, not run) of that many, factors included. A decomposition counts as one "
        "launch, however many its library makes of it.", "",
        "| policy | preconditioner | residual after 1, 5, 10 | products | ms | launches | "
        "products, by the model | ms | launches |", "| --- " * 9 + "|",
    ]
    for row, found in rows:
        for kind, preconditioner in KINDS.items():
            one = found[kind]
            residuals = ", ".join(f"{one['residual'][i]:.2g}" for i in (0, 4, 9))
            cells = [one.get(name + behind) for behind in ("", "_by_gain") for name in (
                "products", "milliseconds", "launches"
            )]
            policy = f"{row.task}, {'x'.join(map(str, row.layers))}"
            numbers = " | ".join("-" if c is None else f"{c:,}" for c in cells)
            lines.append(f"| {policy} | {preconditioner} | {residuals} | {numbers} |")
    PAGE.write_text("\n".join(lines) + "\n")


def all_rows() -> list[Row]:
    return [Row(task, layers) for task in TASKS for layers in NETWORKS]


if __name__ == "__main__":
    kept_rows.main(__file__, __doc__ or "", all_rows(), measure, make_page, None, {})
