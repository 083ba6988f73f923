"""Counting floating-point operations of a program, and measuring how many a device can do."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# One operation per element of the result. What moves or compares data counts nothing.
_ELEMENTWISE = frozenset((
    "add", "sub", "mul", "div", "neg", "abs", "sign", "max", "min", "exp", "exp2", "expm1", "log",
    "log1p", "sqrt", "rsqrt", "cbrt", "pow", "integer_pow", "square", "sin", "cos", "tan", "asin",
    "acos", "atan", "atan2", "sinh", "cosh", "tanh", "logistic", "erf", "erf_inv", "floor", "ceil",
    "round", "clamp", "rem", "add_any",
))
_REDUCTIONS = frozenset((
    "reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "cumsum", "cumprod",
))


def count_flops(function: Callable, *args: Any) -> float:
    """Floating-point operations of one call, from its jaxpr; nothing is compiled or run.

    A product of matrices counts 2 m n k, an elementwise operation one per element, `scan` its body
    times its length, `cond` its dearest branch. A `while` loop counts one turn, since its length
    is known only when it has run: for a line search that is the usual number. XLA's own cost
    analysis counts one turn of a scan, too, which is why it is not used.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: Any) -> float:
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
    if name in _ELEMENTWISE or name in _REDUCTIONS:
        of = equation.invars[0] if name in _REDUCTIONS else equation.outvars[0]
        return float(of.aval.size) if jnp.issubdtype(of.aval.dtype, jnp.floating) else 0.0
    if name == "cond":
        return max(_count(branch.jaxpr) for branch in params["branches"])
    turns = params["length"] if name == "scan" else 1
    # A program over a mesh is written for one shard, and every shard runs it.
    shards = params["mesh"].size if name == "shard_map" else 1
    return turns * shards * sum(_count(inner) for inner in _inner_jaxprs(params))


def _inner_jaxprs(params: dict[str, Any]) -> list[Any]:
    values = [x for v in params.values() for x in (v if isinstance(v, (tuple, list)) else (v,))]
    found = [getattr(value, "jaxpr", value) for value in values]
    return [x for x in found if hasattr(x, "eqns")]


def measured_peak(devices: list[jax.Device], repeats: int = 5) -> float:
    """Floating-point operations per second that `devices` reach together on a product of matrices.

    Full float32, which networks get by default, on all devices at the same time.
    """
    size = 1024 if devices[0].platform == "cpu" else 8192
    arrays = [jax.device_put(jnp.ones((size, size), jnp.float32), device) for device in devices]
    product = jax.jit(lambda x: jnp.matmul(x, x, precision="highest"))
    jax.block_until_ready([product(x) for x in arrays])
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready([product(x) for x in arrays])
        seconds.append(time.perf_counter() - start)
    return 2.0 * size**3 * len(devices) / statistics.median(seconds)
