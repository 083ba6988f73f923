"""Domain randomisation: every environment its own masses, frictions, ..., for good."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jtrust import checks
from jtrust.environments.tracing import said
from jtrust.environments.warp_physics import fixed_for_all

# (model, keys [N]) -> (model with [N, ...] leaves where it varies, in_axes), as in Brax and in
# MuJoCo Playground.
Randomizer = Callable[[Any, jax.Array], tuple[Any, Any]]


class Randomized:
    """An environment whose physical model differs from copy to copy.

    Only the leaves that the randomiser changes are carried, one value per environment, also of what
    it changes alike for all.
    """

    def __init__(self, env: Any, attribute: str, randomizer: Randomizer):
        """Looks what the randomiser changes.

        Args:
          env: a Brax or MuJoCo Playground environment.
          attribute: where it holds its model.
          randomizer: (model, keys [N]) -> (model, in_axes).

        Raises:
          BadArgument: the randomiser is no such function, or changes nothing.
        """
        if not callable(randomizer):
            raise checks.BadArgument(
                "randomizer", randomizer, "must be a function (model, keys) -> (model, in_axes)"
            )
        self.action_size = env.action_size
        self._env, self._attribute, self._randomizer = env, attribute, randomizer
        self._model = getattr(env.unwrapped, attribute)
        named, self._structure = jax.tree_util.tree_flatten_with_path(self._model)
        self._own = [x for _, x in named]
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 3))
        self._varying: list[int] = []  # numbers of the leaves that differ
        jax.eval_shape(self._look, keys)
        if not self._varying:
            raise checks.BadArgument("randomizer", randomizer, "changes nothing of the model")
        for i in self._varying:
            field = jax.tree_util.keystr(named[i][0], simple=True, separator=".")
            if fixed_for_all(self._model, field):
                raise checks.BadArgument(
                    "randomizer", field, "cannot differ between environments in Warp's physics; "
                    "leave it as it is, or use backend jax"
                )

    @property
    def unwrapped(self) -> Any:
        """The environment inside, whose model is the one that nothing was changed in."""
        return self._env.unwrapped

    @property
    def dt(self) -> Any:
        return self._env.unwrapped.dt

    def vary(self, keys: jax.Array) -> list[jax.Array]:
        """The leaves of the model that differ: keys [N] -> [N, ...] each."""
        leaves = self._randomized_leaves(keys)

        def of_each(i):
            leaf = jnp.asarray(leaves[i])
            if leaf.ndim > jnp.ndim(self._own[i]):
                return leaf
            return jnp.broadcast_to(leaf, (len(keys), *leaf.shape))

        return [of_each(i) for i in self._varying]

    def reset(self, key: jax.Array, variation: list[jax.Array]) -> Any:
        with self._under(variation):
            return self._env.reset(key)

    def step(self, state: Any, action: jax.Array, variation: list[jax.Array]) -> Any:
        with self._under(variation):
            return self._env.step(state, action)

    def _randomized_leaves(self, keys: jax.Array) -> list[Any]:
        try:
            model, _ = self._randomizer(self._model, keys)
        except Exception as error:
            raise checks.BadArgument(
                "randomizer", self._randomizer,
                f"must return (model, in_axes) of (model, keys); it raised {said(error)}",
            ) from error
        structure: Any
        leaves, structure = jax.tree.flatten(model)
        if structure != self._structure:
            raise checks.BadArgument(
                "randomizer", self._randomizer, "must return a model like the one that it is given"
            )
        return leaves

    def _look(self, keys: jax.Array) -> None:
        for i, (new, own) in enumerate(zip(self._randomized_leaves(keys), self._own, strict=True)):
            if new is not own:
                self._varying.append(i)

    @contextlib.contextmanager
    def _under(self, variation: list[jax.Array]) -> Iterator[None]:
        """While it is traced, the environment reads its model with the variation in it."""
        leaves = list(self._own)
        for i, value in zip(self._varying, variation, strict=True):
            leaves[i] = value
        inner = self._env.unwrapped
        setattr(inner, self._attribute, jax.tree.unflatten(self._structure, leaves))
        try:
            yield
        finally:
            setattr(inner, self._attribute, self._model)
