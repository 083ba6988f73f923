"""A training state as plain host arrays by the names of their places, with a checksum each."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtrust import checks

# Kinds of JAX's random keys by how many words one has.
_KINDS_OF_KEY = {2: "threefry2x32", 4: "rbg (or unsafe_rbg)"}


def to_arrays(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a pytree by name, on the host; empty ones, which hold nothing, left out."""
    return {name: np.asarray(jax.device_get(x)) for name, x in on_devices(tree).items()}


def on_devices(tree: Any) -> dict[str, Any]:
    """The same, where they are."""
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if _is_key(leaf):
            leaf = jax.random.key_data(leaf)
        if leaf.size:
            arrays[_name(path)] = leaf
    return arrays


def by_name(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree of any kind by the names that arrays in their places have."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def from_arrays(arrays: dict[str, np.ndarray], like: Any, where: str) -> Any:
    """The pytree that `to_arrays` took apart.

    Args:
      arrays: by name.
      like: pytree of shapes and types.
      where: what to call the source in errors.

    Raises:
      BadArgument: a leaf that is missing, left over, or of another shape or type.
    """
    check_arrays(arrays, like, where)

    def take(path, leaf):
        plain = _plain(leaf)
        value = arrays[_name(path)] if plain.size else np.zeros(plain.shape, plain.dtype)
        if _is_key(leaf):
            return jax.random.wrap_key_data(jnp.asarray(value), impl=_key_kind(leaf))
        return value

    return jax.tree_util.tree_map_with_path(take, like)


def check_arrays(arrays: Mapping[str, Any], like: Any, where: str) -> None:
    """The checks of `from_arrays`, of the arrays' shapes and types alone."""
    wanted = {
        _name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(like)
        if _plain(leaf).size
    }
    # Random keys first: where their kind differs, so may the shapes of much else.
    for name in sorted(wanted, key=lambda name: not _is_key(wanted[name])):
        leaf, plain = wanted[name], _plain(wanted[name])
        if name not in arrays:
            raise checks.BadArgument("RUN_DIR", where, f"has no {name}, {plain.shape}")
        value = arrays[name]
        if value.shape == plain.shape and value.dtype == plain.dtype:
            continue
        if _is_key(leaf):
            theirs = _KINDS_OF_KEY.get(value.shape[-1] if value.shape else 0, "another kind")
            raise checks.BadArgument(
                "JAX_DEFAULT_PRNG_IMPL", _key_kind(leaf),
                f"the random keys of {where} are of the kind {theirs}; to go on with it, set "
                f"JAX_DEFAULT_PRNG_IMPL={theirs.partition(' ')[0]}",
            )
        raise checks.BadArgument(
            "RUN_DIR", where,
            f"{name} is {value.dtype}{list(value.shape)}, but the configuration asks for "
            f"{plain.dtype}{list(plain.shape)}",
        )
    if left := sorted(set(arrays) - set(wanted)):
        raise checks.BadArgument(
            "RUN_DIR", where, f"has {', '.join(left[:3])}, which the configuration has not"
        )


def _plain(leaf: Any) -> Any:
    """Shape and type of a leaf as it is stored."""
    return jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf


def _key_kind(leaf: Any) -> str:
    """The kind of random keys, such as threefry2x32."""
    return str(jax.random.key_impl(jax.lax.full((), 0, leaf.dtype)))


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def checksum(array: np.ndarray) -> str:
    """Of an array's bytes, shape and type."""
    header = zlib.crc32(checksum_header(array.dtype, array.shape))
    return f"{zlib.crc32(np.ascontiguousarray(array).tobytes(), header):08x}"


def checksum_header(dtype: Any, shape: tuple[int, ...]) -> bytes:
    """What comes before an array's bytes in its checksum."""
    return f"{dtype}{shape}".encode()
