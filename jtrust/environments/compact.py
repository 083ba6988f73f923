"""States without what nothing reads: a physics engine's state holds far more than its next step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval

from jtrust.environments.base import Discrete, Environment
from jtrust.environments.costs import state_costs
from jtrust.environments.warp_physics import OVERFLOW


@functools.lru_cache(maxsize=8)  # the same object again, so that what was compiled for it serves
def compact(environment: Environment) -> Environment:
    """The same environment, None in its states where nothing reads what was there.

    Whatever neither an observation that is used, nor the reward, a cost or an end depends on, now
    or in any later step, is not computed at reset, carried from step to step, copied at restarts,
    or kept in checkpoints: nine tenths of an MJX state.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    variation: tuple = ()
    vary = environment.vary
    if vary is not None:
        keys = jax.ShapeDtypeStruct((1,), key.dtype)
        variation = (jax.eval_shape(
            lambda keys: jax.tree.map(lambda x: x[0], vary(keys)), keys
        ),)
    structure: Any
    full, structure = jax.tree.flatten(jax.eval_shape(environment.reset, key, *variation))
    kept = _read(environment, structure.unflatten(full), variation)
    # Arrays of size zero hold nothing, and lose their sharding on the way through a program.
    kept = [keep and x.size > 0 for keep, x in zip(kept, full, strict=True)]

    def strip(state: Any) -> Any:
        leaves = zip(jax.tree.leaves(state), kept, strict=True)
        return structure.unflatten([x if keep else None for x, keep in leaves])

    def fill(state: Any) -> Any:
        left = iter(jax.tree.leaves(state))
        return structure.unflatten([
            next(left) if keep else jnp.zeros(x.shape, x.dtype)
            for x, keep in zip(full, kept, strict=True)
        ])

    return dataclasses.replace(
        environment,
        reset=lambda *args: strip(environment.reset(*args)),
        step=lambda state, *args: strip(environment.step(fill(state), *args)),
    )


def _read(environment: Environment, state: Any, variation: tuple) -> list[bool]:
    """Which leaves of a state are read, sooner or later: the least set that keeps itself alive."""
    if isinstance(environment.action, Discrete):
        action = jax.ShapeDtypeStruct((), jnp.int32)
    else:
        action = jax.ShapeDtypeStruct((environment.action.size,), jnp.float32)
    jaxpr = jax.make_jaxpr(environment.step)(state, action, *variation).jaxpr
    structure: Any
    leaves, structure = jax.tree.flatten(state)
    number = structure.unflatten(range(len(leaves)))
    wanted = set(jax.tree.leaves((environment.used(number.obs), number.reward, number.done)))
    info = getattr(number, "info", None)
    if isinstance(info, Mapping):
        wanted |= {info[name] for name in ("truncation", OVERFLOW) if name in info}
    costs = state_costs(number)
    wanted |= {costs[name] for name in environment.costs}
    # Random keys stay: there are no zeros of them to stand in their place.
    read = [
        i in wanted or jnp.issubdtype(x.dtype, jax.dtypes.extended) for i, x in enumerate(leaves)
    ]
    while True:
        _, inputs = partial_eval.dce_jaxpr(jaxpr, read)
        more = [a or b for a, b in zip(read, inputs[: len(read)], strict=True)]
        if more == read:
            return read
        read = more
