"""Looking at an environment without running it: what its functions return, and if it will do."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from jtrust import checks
from jtrust.environments.costs import check_costs

# Code below these folders is not the user's.
_LIBRARIES = ("site-packages", "dist-packages", "<frozen", "<string>", "jtrust/environments/")


def said(error: BaseException) -> str:
    """An exception in one line: its type, its first line, and where in the user's code it rose."""
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(part in f.filename for part in _LIBRARIES)]
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return text + place


def trace_variation(vary: Callable, key: Any) -> Any:
    """Shapes of one environment's own variation.

    Raises:
      BadArgument: where `vary` cannot be traced, or gives not one entry for each key.
    """
    count = 3
    try:
        several = jax.eval_shape(vary, jax.ShapeDtypeStruct((count,), key.dtype))
    except checks.BadArgument:
        raise
    except Exception as error:
        raise _untraceable("vary", error) from error
    for path, x in jax.tree_util.tree_leaves_with_path(several):
        if x.shape[:1] != (count,):
            raise checks.BadArgument(
                f"env.vary(){jax.tree_util.keystr(path)}", x.shape,
                f"must be [N, ...], one entry for each key; this was for {count} keys",
            )
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), several)


def trace_pair(
    reset: Callable, step: Callable, key: Any, action: Any, variation: tuple
) -> tuple[Callable, Callable, Any]:
    """`reset` and `step` with their tracing done, and the shapes of their state.

    Where a number is whole at the start and a fraction later (`reward=0` and then 0.7), the start
    is made a fraction too. Rewards are always, so that they can be added up.

    Raises:
      BadArgument: where one cannot be traced, or returns what is no such state, or the two do not
        return the same.
    """
    begin, start = _traced("reset", reset, key, *variation)
    go_on, after = _traced("step", step, start, action, *variation)
    _check_alike(start, after)
    types = jax.tree_util.tree_map_with_path(
        lambda path, a, b: _fraction(path, _common(a.dtype, b.dtype)), start, after
    )
    # Leaf by leaf: states hold arrays as structure too, and those cannot be compared as a whole.
    if jax.tree.leaves(types) != [x.dtype for x in jax.tree.leaves(start)]:
        begin, start = _traced(
            "reset",
            lambda *args: jax.tree.map(
                lambda x, t: x if x.dtype == t else x.astype(t), begin(*args), types
            ),
            key, *variation,
        )
        go_on, after = _traced(
            "step",
            lambda *args: jax.tree_util.tree_map_with_path(_as_fraction, step(*args)),
            start, action, *variation,
        )
        _check_alike(start, after, types=True)
    return begin, go_on, start


def _fraction(path: tuple, dtype: Any) -> Any:
    """The type of a leaf, for the reward a fraction's."""
    reward = len(path) == 1 and jax.tree_util.keystr(path, simple=True) == "reward"
    return jnp.dtype(jnp.float32) if reward and not jnp.issubdtype(dtype, jnp.inexact) else dtype


def _as_fraction(path: tuple, x: Any) -> Any:
    dtype = jnp.result_type(x) if not hasattr(x, "dtype") else x.dtype
    wanted = _fraction(path, dtype)
    return x if wanted == dtype else jnp.asarray(x, wanted)


def _common(a: Any, b: Any) -> Any:
    return a if a == b or jnp.issubdtype(a, jax.dtypes.extended) else jnp.promote_types(a, b)


def _untraceable(what: str, error: Exception) -> checks.BadArgument:
    return checks.BadArgument(
        f"env.{what}", type(error).__name__, f"cannot be traced by JAX: {_first_line(error)}"
    )


def _traced(what: str, function: Callable, *args: Any) -> tuple[Callable, Any]:
    """`function` with its tracing done, which takes a physics engine seconds, and what it returns.

    Compiling a run then goes through the finished jaxpr, wherever it stands in the program.
    """

    def call(*args):
        state = function(*args)
        for leaf in jax.tree.leaves(state):
            if not hasattr(leaf, "dtype") and not isinstance(leaf, (bool, int, float, complex)):
                raise checks.BadArgument(
                    f"env.{what}()", type(leaf).__name__,
                    "is nothing that JAX knows: register it, by "
                    "jax.tree_util.register_dataclass or flax.struct.dataclass",
                )
        return state

    try:
        jaxpr, state = jax.make_jaxpr(call, return_shape=True)(*args)
    except checks.BadArgument:
        raise
    except Exception as error:
        raise _untraceable(what, error) from error
    _check_fields(what, state)
    inputs: Any = jax.tree.structure(args)
    output: Any = jax.tree.structure(state)

    @functools.partial(jax.jit, inline=True)
    def replay(*args):
        given: Any = jax.tree.structure(args)
        if given != inputs:
            raise TypeError(f"{what} takes {inputs}, not {given}")
        return output.unflatten(jaxpr_as_fun(jaxpr)(*jax.tree.leaves(args)))

    return replay, state


def _check_fields(what: str, state: Any) -> None:
    """Raises `BadArgument` where a state lacks a field or a scalar is none."""
    for field in ("obs", "reward", "done"):
        if not hasattr(state, field):
            raise checks.BadArgument(
                f"env.{what}", type(state).__name__, f"must return a state with a field {field}"
            )
    scalars = {field: getattr(state, field) for field in ("reward", "done")}
    info = getattr(state, "info", None)
    if isinstance(info, Mapping) and "truncation" in info:
        scalars["info['truncation']"] = info["truncation"]
    for field, value in scalars.items():
        shape = getattr(value, "shape", None)
        if shape != ():
            raise checks.BadArgument(f"env.{what}().{field}", shape, "must be a scalar, shape ()")
    check_costs(what, state)


def _check_alike(start: Any, after: Any, types: bool = False) -> None:
    """Raises `BadArgument` where the states of reset and step differ, naming the field."""
    first_tree: Any
    (of_first, first_tree), (of_second, second_tree) = (
        jax.tree_util.tree_flatten_with_path(x) for x in (start, after)
    )
    first, second = ({jax.tree_util.keystr(p): x for p, x in one} for one in (of_first, of_second))
    for here, there, what, other in (
        (first, second, "step", "reset"), (second, first, "reset", "step")
    ):
        if lacking := [path for path in here if path not in there]:
            raise checks.BadArgument(
                f"env.{what}(){lacking[0]}", None,
                f"is missing; states of {what} must have all that {other}'s have",
            )
    if first_tree != second_tree:
        raise checks.BadArgument(
            "env.step", "another structure than reset's", "must return a state like reset's"
        )
    for path, a in first.items():
        b = second[path]
        if a.shape != b.shape:
            raise checks.BadArgument(
                f"env.step(){path}", b.shape, f"must have the shape of reset's, {a.shape}"
            )
        if types and a.dtype != b.dtype:
            raise checks.BadArgument(
                f"env.step(){path}", str(b.dtype), f"must be of the type of reset's, {a.dtype}"
            )
