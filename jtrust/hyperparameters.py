"""Numbers that training is told as a frozen pytree, those that shape the program apart."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax


def static(default: Any) -> Any:
    """A field that shapes the program: part of the pytree's structure and no leaf."""
    return dataclasses.field(default=default, metadata={"static": True})


def hyperparameters(cls: type) -> type:
    """Registers a frozen dataclass as a pytree whose `static` fields are structure.

    Unlike `jax.tree_util.register_dataclass` it rebuilds an object without calling `__init__`:
    users' numbers are checked when users write them, and not when a transformation puts tracers,
    axes or None in their place.
    """
    fields = dataclasses.fields(cls)
    leaves = [f.name for f in fields if not f.metadata.get("static")]
    structure = [f.name for f in fields if f.metadata.get("static")]

    def flatten_with_keys(obj):
        children = [(jax.tree_util.GetAttrKey(n), getattr(obj, n)) for n in leaves]
        return children, tuple(getattr(obj, n) for n in structure)

    def unflatten(values, children):
        obj: Any = object.__new__(cls)
        for name, value in zip(leaves + structure, (*children, *values), strict=True):
            object.__setattr__(obj, name, value)
        return obj

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten)
    return cls
