"""A large rollout in parts: a step of an algorithm from each, and a limit for the whole."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jtrust.algorithms.batch import Batch
from jtrust.algorithms.surrogate import DistributionFn, Limits, Surrogate, policy_metrics
from jtrust.algorithms.trees import Params, finite, tree_add
from jtrust.networks.sequence import along_environments
from jtrust.trust_region import backtracking_line_search

if TYPE_CHECKING:
    from jtrust.algorithms.base import Algorithm

# Of the metrics of parts: what is summed, and what is that of the last part; others are averaged.
_SUMMED = ("policy/skipped",)
_LAST = ("policy/learning_rate", "policy/kl_coefficient")


def update_in_parts(
    algorithm: Algorithm, state: Any, params: Params, distribution_fn: DistributionFn, batch: Batch,
    limits: Limits, axis_name: str | None,
) -> tuple[Params, Any, dict[str, jax.Array]]:
    """Several steps of an algorithm from one rollout, each on a part that no other step has seen.

    A large rollout says more than one step can use: how far a step may go is bounded by how far
    its direction stays right, not by noise. So the rollout is cut by its environments, and each
    part makes a step from where the one before it ended. That policy, near which the step is kept,
    is not the one that gathered the part, which stands in the importance weights alone: the
    proximal and the behaviour policy apart (Hilton, Cobbe and Schulman, 2022, arXiv:2110.00641).
    At the end the whole move is measured over the whole rollout, from the policy that gathered it,
    and drawn back along the straight line to within `limits` where it is outside.

    Args:
      algorithm: `settled`; its `step` is taken `parts` times.
      state, params, distribution_fn, batch, axis_name: as for `Algorithm.update`.
      limits: of the whole move.
    """
    surrogate = algorithm.surrogate(params, distribution_fn, batch, axis_name)
    shape, parts = batch.advantage.shape, algorithm.parts
    by_step = {
        "observation": batch.observation, "action": batch.action, "advantage": batch.advantage,
        "weight": batch.weights(), "broken": jnp.broadcast_to(batch.broken, shape),
        "behaviour_log_prob": surrogate.old_log_prob.reshape(shape),
    }

    def cut(x: jax.Array, axis: int) -> jax.Array:
        """[.., N, ..] -> [parts, .., N / parts, ..], every `parts`-th environment."""
        shape = (*x.shape[:axis], x.shape[axis] // parts, parts, *x.shape[axis + 1:])
        return jnp.moveaxis(x.reshape(shape), axis + 1, 0)

    def step(carry, part):
        params, state = carry
        fields, keys = part
        params, state, metrics = algorithm.step(
            state, params, distribution_fn,
            dataclasses.replace(batch, environment_keys=keys, **fields),
            algorithm.limits_of_parts(limits), axis_name,
        )
        return (params, state), metrics

    (new_params, state), metrics = jax.lax.scan(
        step, (params, state),
        (along_environments(cut, by_step), cut(batch.environment_keys, 0)),
    )
    any_step = jnp.any(metrics["policy/accepted"] > 0)
    new_params, of_whole = _drawn_back(surrogate, new_params, limits, any_step)
    of_parts = {
        name: jnp.sum(x) if name in _SUMMED else x[-1] if name in _LAST else jnp.mean(x)
        for name, x in metrics.items() if name not in of_whole
    }
    return new_params, state, {
        **of_whole, **of_parts, "policy/kl_parts": jnp.mean(metrics["policy/kl"]),
    }


def _drawn_back(
    surrogate: Surrogate, new_params: Params, limits: Limits, any_step: jax.Array
) -> tuple[Params, dict[str, jax.Array]]:
    """The whole move drawn back to within `limits`: (parameters, metrics of the whole)."""
    params = surrogate.old_params
    with jax.named_scope("line_search"):
        move = jax.tree.map(lambda n, p: n - p, new_params, params)

        def accept(scale):
            candidate = tree_add(params, move, scale)
            measured = surrogate.at(candidate)
            return limits.hold(measured) & finite(candidate), measured

        search = backtracking_line_search(accept, surrogate.unmoved(), factor=0.8, max_trials=30)
    accepted = search.accepted & (limits.kl > 0)
    scale = jnp.where(accepted, search.scale, 0.0)
    measured = jax.tree.map(
        lambda m, u: jnp.where(accepted, m, u), search.aux, surrogate.unmoved()
    )
    kept = jax.tree.map(lambda p, m: jnp.where(accepted, p + scale * m, p), params, move)
    return kept, policy_metrics(
        measured, surrogate.predicted_kl(move, scale), accepted & any_step, scale, limits
    )
