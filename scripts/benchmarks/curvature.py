"""Kronecker factors of the Fisher matrix as a preconditioner of TRPO's conjugate gradients.

    python scripts/benchmarks/curvature.py             # rows not there yet, then docs/curvature.md
    python scripts/benchmarks/curvature.py --page      # the page alone, of what there is

For each task and network: a policy that TRPO has trained for some iterations, one more batch of
its own, and the system (F + 0.1 I) x = g that TRPO solves there. Asked is how many products with F
it takes to come as near as ten plain iterations do, by the residual and by the quadratic model, with

    K-FAC (Martens and Grosse, 2015, arXiv:1503.05671): F of a layer ~ A ⊗ G, with A = E[ā āᵀ] of
    its inputs and G = E[g gᵀ] of the derivatives by its outputs, layers apart; inverted with the
    damping by the eigenvectors of both factors (George et al., 2018, arXiv:1806.03884, without
    its scaling). The log deviation's block is exact.

G comes from all columns of the Gaussian's Fisher factor, one backward pass for each dimension of the
action, or from one draw for each state, one backward pass. Beside that: milliseconds here, and launches of the
whole solution compiled for an H100, not run.
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
os.environ["JAX_PLATFORMS"] = "cpu"
from scripts.benchmarks import kept_rows

DATA, PAGE = ROOT / "docs/curvature", ROOT / "docs/curvature/tables.md"
DAMPING, PLAIN, STRIDE, ITERATIONS = 0.1, 10, 4, 30
MIN_STD = 0.05  # of jtrust.NetworkConfig
TASKS = {"hopper": "spring", "ant": "spring"}
NETWORKS = ((64, 64), (256, 256), (512, 256, 128))
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


def names_of(layers: dict[str, Any]) -> list[str]:
    """Of the layers of jtrust's MLP, from the first to the last."""
    return ["input", *sorted(n for n in layers if n.startswith("hidden_")), "output"]


def means(layers: dict[str, Any], x: Any, shifts: dict[str, Any] | None = None) -> tuple[Any, dict]:
    """The MLP written out: (means [B, A], the inputs of its layers with a 1 behind, [B, I + 1])."""
    import jax.numpy as jnp

    inputs, names = {}, names_of(layers)
    for name in names:
        inputs[name] = jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)
        x = jnp.matmul(x, layers[name]["kernel"], precision="highest") + layers[name]["bias"]
        if shifts is not None:
            x = x + shifts[name]
        x = x if name == names[-1] else jnp.tanh(x)
    return x, inputs


def factors(params: Any, x: Any, key: Any, exact: bool) -> dict[str, tuple[Any, Any]]:
    """{layer: (A [I + 1, I + 1], G [O, O])} over states [B, O]."""
    import jax
    import jax.numpy as jnp

    layers = params["params"]["mlp"]
    inverse_std = jnp.exp(-jnp.log(MIN_STD + jnp.exp(params["params"]["log_std"])))
    zeros = {n: jnp.zeros((x.shape[0], layers[n]["bias"].shape[0])) for n in names_of(layers)}
    mean, pull_back, inputs = jax.vjp(lambda s: means(layers, x, s), zeros, has_aux=True)
    if exact:
        columns = jnp.eye(mean.shape[1])[:, None, :] * jnp.ones_like(mean)
    else:
        columns = jax.random.normal(key, (1, *mean.shape))
    (pulled,) = jax.vmap(pull_back)(columns * inverse_std)
    product = lambda y: jnp.matmul(y.T, y, precision="highest") / x.shape[0]  # noqa: E731
    return {
        n: (product(inputs[n]), product(pulled[n].reshape(-1, pulled[n].shape[-1])))
        for n in names_of(layers)
    }


def preconditioner(params: Any, of_layers: dict[str, tuple[Any, Any]]) -> Callable[[Any], Any]:
    """v -> (F_KFAC + DAMPING I)⁻¹ v, layer by layer, on pytrees like `params`."""
    import jax.numpy as jnp

    eigen = {n: (jnp.linalg.eigh(a), jnp.linalg.eigh(g)) for n, (a, g) in of_layers.items()}
    times = lambda *xs: jnp.linalg.multi_dot(xs, precision="highest")  # noqa: E731

    def apply(v):
        mlp, solved = v["params"]["mlp"], {}
        for name, ((a, ua), (g, ug)) in eigen.items():
            matrix = jnp.concatenate([mlp[name]["kernel"], mlp[name]["bias"][None]], axis=0)
            rotated = times(ua.T, matrix, ug) / (a[:, None] * g + DAMPING)
            matrix = times(ua, rotated, ug.T)
            solved[name] = {"kernel": matrix[:-1], "bias": matrix[-1]}
        raw = params["params"]["log_std"]
        slope = jnp.exp(raw) / (MIN_STD + jnp.exp(raw))  # of log σ = log(min_std + exp raw)
        log_std = v["params"]["log_std"] / (2.0 * slope**2 + DAMPING)
        return {"params": {"mlp": solved, "log_std": log_std}}

    return apply


def solve(
    matvec: Callable[[Any], Any], b: Any, iterations: int,
    precondition: Callable[[Any], Any] = lambda v: v,
) -> tuple[Any, Any, Any]:
    """Preconditioned conjugate gradients: (x, then of each iteration: ‖b - A x‖ / ‖b‖, and
    bᵀx - ½ xᵀA x, what the quadratic model gains)."""
    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    b, unravel = ravel_pytree(b)
    flat = lambda function, v: ravel_pytree(function(unravel(v)))[0]  # noqa: E731

    def step(carry, _):
        x, residual, direction, rho = carry
        product = flat(matvec, direction)
        length = rho / jnp.vdot(direction, product)
        x, residual = x + length * direction, residual - length * product
        z = flat(precondition, residual)
        new_rho = jnp.vdot(residual, z)
        direction = z + new_rho / rho * direction
        found = jnp.linalg.norm(residual) / jnp.linalg.norm(b), 0.5 * jnp.vdot(x, b + residual)
        return (x, residual, direction, new_rho), found

    z = flat(precondition, b)
    (x, *_), (residuals, gains) = jax.lax.scan(
        step, (jnp.zeros_like(b), b, z, jnp.vdot(b, z)), length=iterations
    )
    return unravel(x), residuals, gains


def programs(network: Any, b: Any) -> dict[str, Callable[..., Any]]:
    """What is timed and compiled: (params, states, key) -> solutions, by name and iterations."""
    from jtrust.trust_region import fisher_operator

    def solution(params, b, x, key, iterations, kind):
        matvec = fisher_operator(lambda p: network(p, x), params, DAMPING)
        if kind == "plain":
            return solve(matvec, b, iterations)
        of_layers = factors(params, x, key, kind == "exact")
        return solve(matvec, b, iterations, preconditioner(params, of_layers))

    return {
        kind: lambda *given, kind=kind: solution(*given, kind)
        for kind in ("plain", "exact", "sampled")
    }


def first_within(values: Any, limit: float, sign: float) -> int | None:
    """The number of iterations after which a value is as good as a limit; None for never."""
    return next((i + 1 for i, v in enumerate(values) if sign * v <= sign * limit), None)


def measure(row: Row) -> dict[str, Any]:
    """The figures of one row."""
    import jax
    import numpy as np

    from jtrust.algorithms.batch import flatten_time
    from jtrust.algorithms.surrogate import Surrogate

    network, params, batch = trained(row)
    x = flatten_time(batch.observation[::STRIDE])
    np.testing.assert_allclose(
        means(params["params"]["mlp"], x)[0], network(params, x).mean, rtol=1e-4, atol=1e-5
    )
    b = jax.jit(lambda p: Surrogate(p, network, batch, 0.003, None).gradient())(params)
    key, ways = jax.random.key(1), programs(network, b)
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
        products = first_within(residuals, residual, 1.0)
        one = found[kind] = {
            "residual": [float(f"{r:.4g}") for r in residuals[:PLAIN]],
            "gain": [float(f"{g / best:.6g}") for g in gains[:PLAIN]],
            "products": products, "products_by_gain": first_within(gains, gain * 0.99999, -1.0),
        }
        if products is not None:
            one["milliseconds"] = milliseconds(ways[kind], (params, b, x, key, products))
            one["launches"] = launches(ways[kind], params, b, x, products)
    return found


def milliseconds(way: Callable[..., Any], given: tuple, repeats: int = 5) -> float:
    """The least of some calls, compiled before."""
    import jax

    program = jax.jit(lambda *a: way(*a, given[-1])[0])
    jax.block_until_ready(program(*given[:-1]))
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(program(*given[:-1]))
        taken.append(time.perf_counter() - start)
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
        "Written by `python scripts/benchmarks/curvature.py`: products with the Fisher matrix until "
        f"the residual is that of {PLAIN} plain iterations (damping {DAMPING}), until the quadratic "
        "model gains as much; milliseconds on one CPU, launches on an H100 (compiled, not run), "
        "factors included.", "",
        "| policy | preconditioner | residual after 1, 5, 10 | products | by the model | ms | launches |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    said = {"plain": "none", "exact": "K-FAC, exact G", "sampled": "K-FAC, sampled G"}
    for row, found in rows:
        for kind, name in said.items():
            one = found[kind]
            residuals = ", ".join(f"{one['residual'][i]:.2g}" for i in (0, 4, 9))
            cells = [one.get(k) for k in ("products", "products_by_gain", "milliseconds", "launches")]
            lines.append(f"| {row.task}, {'x'.join(map(str, row.layers))} | {name} | {residuals} | "
                         + " | ".join("-" if c is None else f"{c:,}" for c in cells) + " |")
    PAGE.write_text("\n".join(lines) + "\n")


def all_rows() -> list[Row]:
    return [Row(task, layers) for task in TASKS for layers in NETWORKS]


if __name__ == "__main__":
    kept_rows.main(__file__, __doc__ or "", all_rows(), measure, make_page, None, {})
