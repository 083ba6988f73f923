"""Kronecker factors of the Fisher matrix of jtrust's MLP policies, and a solver that takes them.

K-FAC (Martens and Grosse, 2015, arXiv:1503.05671): the block of a layer is about A ⊗ G, with
A = E[ā āᵀ] of its inputs, a 1 behind them, and G = E[g gᵀ] of the derivatives by its outputs. An
experiment of `curvature.py`, and no part of jtrust.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

MIN_STD = 0.05  # of jtrust.NetworkConfig


def names_of(layers: dict[str, Any]) -> list[str]:
    """Of the layers of jtrust's MLP, from the first to the last."""
    return ["input", *sorted(n for n in layers if n.startswith("hidden_")), "output"]


def means(layers: dict[str, Any], x: Any, shifts: dict[str, Any] | None = None) -> tuple[Any, dict]:
    """The MLP written out: (means [B, A], the inputs of its layers with a 1 behind, [B, I + 1])."""
    inputs, names = {}, names_of(layers)
    for name in names:
        inputs[name] = jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)
        x = jnp.matmul(x, layers[name]["kernel"], precision="highest") + layers[name]["bias"]
        if shifts is not None:
            x = x + shifts[name]
        x = x if name == names[-1] else jnp.tanh(x)
    return x, inputs


def factors(params: Any, x: Any, key: Any, exact: bool) -> dict[str, tuple[Any, Any]]:
    """{layer: (A [I + 1, I + 1], G [O, O])} over states [B, O].

    G is of all columns of the Gaussian's Fisher factor, one backward pass for each dimension of
    the action; or, if not `exact`, of one draw for each state, one backward pass.
    """
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


def preconditioner(
    params: Any, of_layers: dict[str, tuple[Any, Any]], damping: float, by_eigenvectors: bool
) -> Callable[[Any], Any]:
    """v -> (F_KFAC + damping I)⁻¹ v, layer by layer, on pytrees like `params`.

    By the eigenvectors of both factors, in which the damped product is diagonal and exact; or by
    the inverses of both, each with a part of the damping (section 6.3 of the paper), which need a
    Cholesky decomposition alone. The block of the log deviation is exact.
    """
    of_layer = _by_eigenvectors if by_eigenvectors else _by_inverses
    solvers = {name: of_layer(a, g, damping) for name, (a, g) in of_layers.items()}

    def apply(v):
        mlp, solved = v["params"]["mlp"], {}
        for name, solver in solvers.items():
            rows = [mlp[name]["kernel"], mlp[name]["bias"][None]]
            matrix = solver(jnp.concatenate(rows, axis=0))
            solved[name] = {"kernel": matrix[:-1], "bias": matrix[-1]}
        raw = params["params"]["log_std"]
        slope = jnp.exp(raw) / (MIN_STD + jnp.exp(raw))  # of log σ = log(min_std + exp raw)
        log_std = v["params"]["log_std"] / (2.0 * slope**2 + damping)
        return {"params": {"mlp": solved, "log_std": log_std}}

    return apply


def _times(*matrices: Any) -> Any:
    return functools.reduce(functools.partial(jnp.matmul, precision="highest"), matrices)


def _by_eigenvectors(a: Any, g: Any, damping: float) -> Callable[[Any], Any]:
    (values_a, u), (values_g, w) = jnp.linalg.eigh(a), jnp.linalg.eigh(g)
    scale = values_a[:, None] * values_g + damping
    return lambda matrix: _times(u, _times(u.T, matrix, w) / scale, w.T)


def _by_inverses(a: Any, g: Any, damping: float) -> Callable[[Any], Any]:
    ratio = jnp.sqrt(jnp.trace(a) / a.shape[0] / (jnp.trace(g) / g.shape[0]))
    inverses = [
        jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(x + share * eye), True), eye)
        for x, share in ((a, ratio * damping**0.5), (g, damping**0.5 / ratio))
        for eye in (jnp.eye(x.shape[0]),)
    ]
    return lambda matrix: _times(inverses[0], matrix, inverses[1])


def solve(
    matvec: Callable[[Any], Any], b: Any, iterations: int,
    precondition: Callable[[Any], Any] = lambda v: v,
) -> tuple[Any, Any, Any]:
    """Preconditioned conjugate gradients: (x, then of each iteration: ‖b - A x‖ / ‖b‖, and
    bᵀx - ½ xᵀA x, what the quadratic model gains)."""
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
