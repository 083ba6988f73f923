"""The values of a policy by one linear solve: least-squares temporal differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jtrust.advantages import gae
from jtrust.networks import ValueNetwork
from jtrust.networks.sequence import Sequence, along_environments
from jtrust.trust_region import mean_over

# Steps of the rollout from which the matrix is taken; the right-hand side is of all of them.
_MATRIX_STATES = 65_536
# Multiple of the identity added to the matrix, whose features are of a size near one: a direction
# that the states bear out less than this stays nearly where it is.
_RIDGE = 1e-3


def solve_output_layer(
    network: ValueNetwork, params: Any, observation: Any,
    final_observation: Any, advantage: jax.Array, termination: jax.Array, ends: jax.Array,
    cut: jax.Array, weight: jax.Array, discount: jax.Array | float, value_lambda: jax.Array | float,
    axis_name: str | None = None,
) -> Any:
    """The last layer for which values are those of the policy, as far as its inputs can say.

    LSTD(λ) (Bradtke and Barto, 1996; Boyan, 2002). Values are linear in the last layer, v = φ·w,
    and so are the advantages A^λ that rewards and values give; at the fixed point of TD(λ),
    E[φ A^λ(w)] = 0, no feature correlates with what is left. One solve of H equations goes there
    at once, where fits to targets go a share of 1 - γ (1 - λ) / (1 - γλ) of the way each.

    Args:
      network: the value network.
      params: its parameters.
      observation: normalised, [T, N, V]; or a sequence of such.
      final_observation: those after the last step, [N, V]; or what `Network.following` gives.
      advantage: A^λ under `params` on its scale, [T, N].
      termination: no bootstrap, bool [T, N].
      ends: where the sums stop, bool [T, N].
      cut: where the value that follows is not one of this window, and so taken as it is, [T, N].
      weight: of each step, [T, N].
      discount: γ.
      value_lambda: λ.
      axis_name: mesh axis of the shards.

    Returns:
      `params` with another last layer; unchanged where there is no finite solution.
    """
    layer = network.output_layer(params)
    start, unravel = ravel_pytree(layer)
    along_layer = _along_layer(network, params, start, unravel)

    def features(states: Any, *shape: int) -> jax.Array:
        """[*shape, V] -> [H, *shape]."""
        push, _ = along_layer(states)
        return jax.vmap(push)(jnp.eye(start.size)).reshape(start.size, *shape)

    _, pull = along_layer(observation)
    (right,) = pull((weight * advantage).reshape(-1) / advantage.size)
    steps, environments = advantage.shape
    stride = _stride(steps, environments, axis_name)
    some = lambda x, axis=1: x[:, ::stride] if axis else x[::stride]  # noqa: E731
    number = len(range(0, environments, stride))
    phi = features(along_environments(some, observation), steps, number)
    if isinstance(final_observation, Sequence):
        last = along_environments(some, final_observation)
    else:
        last = final_observation[::stride]
    after = jnp.concatenate([phi[:, 1:], features(last, number)[:, None]], axis=1)
    after = jnp.where(some(cut), 0.0, after)

    def along_time(phi: jax.Array, after: jax.Array) -> jax.Array:
        """What a change of the values by `phi` changes the advantages by, [T, N]."""
        return gae(
            jnp.zeros_like(phi), phi, after, some(termination), some(ends), discount, value_lambda
        )[0]

    change = jax.vmap(along_time)(phi, after)
    matrix = -jnp.einsum(
        "itn,jtn->ij", phi * some(weight) / phi[0].size, change, precision="highest"
    )
    matrix, right = mean_over((matrix, right), axis_name)
    step = _solve(matrix + _RIDGE * jnp.eye(start.size), right)
    good = jnp.all(jnp.isfinite(step))
    return network.with_output_layer(params, jax.tree.map(
        lambda new, old: jnp.where(good, new, old), unravel(start + step), layer
    ))


def _solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """The solution of one system of equations. Under `vmap` a CPU solves one after the other: all
    at once they would wait on threads that its devices hold (`jtrust.runs.cpu_devices`)."""
    one_by_one = jax.custom_batching.sequential_vmap(jnp.linalg.solve)
    return jax.lax.platform_dependent(matrix, right, cpu=one_by_one, default=jnp.linalg.solve)


def _along_layer(
    network: ValueNetwork, params: Any, start: jax.Array, unravel: Callable[[jax.Array], Any]
) -> Callable[[Any], tuple[Callable, Callable]]:
    """States [..., V], or a sequence -> (flat change of the layer [H] -> change of the values [B],
    its transpose).

    Values are linear in the layer, which is `unravel(start)` now.
    """

    def at(states: Any) -> tuple[Callable, Callable]:
        in_order = isinstance(states, Sequence)
        flat = states if in_order else states.reshape(-1, states.shape[-1])
        _, push = jax.linearize(
            lambda w: network(network.with_output_layer(params, unravel(w)), flat), start
        )
        return push, jax.linear_transpose(push, start)

    return at


def _stride(steps: int, environments: int, axis_name: str | None) -> int:
    """Every how many-th environment is enough for the matrix."""
    shards = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    return min(max(steps * environments * shards // _MATRIX_STATES, 1), environments)
