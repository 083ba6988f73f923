"""`--format brax`: parameters for the networks of brax's PPO, as `brax.io.model` keeps them.

Brax's Gaussians have a mean that nothing bounds, so the clip to [-1, 1] is left to whoever calls
its inference function; brax's and MuJoCo's actuators do it themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtrust import checks
from jtrust.deploy.acting import Acting
from jtrust.environments.base import Box
from jtrust.networks.mlp import FeedForward, GaussianPolicy
from jtrust.policy import Policy

_LEAST_STD = 0.001  # which brax adds to the deviation of a tanh of a Gaussian


def refuse_unlike(policy: Policy) -> None:
    """Raises `BadArgument` for what brax's networks cannot say."""
    if policy.has_memory:
        raise _cannot("brax's networks remember nothing, and this policy has a memory")
    module = getattr(policy.network, "module", None)
    if not isinstance(policy.network, FeedForward) or not isinstance(module, GaussianPolicy):
        raise _cannot(f"{type(module).__name__} is none of brax's networks, which are layers "
                      "under a Gaussian")
    action = policy.action
    if not isinstance(action, Box) or (action.low, action.high) != (-1.0, 1.0):
        raise _cannot(f"brax's policies act in [-1, 1], and this one in {action}")
    config = module.config
    if config.state_dependent_std and (config.squash or config.min_std > 0):
        raise _cannot(
            "a deviation for each state is, in brax, an exponential without a floor (min_std 0) "
            "under a Gaussian without a squash"
        )


def _cannot(why: str) -> checks.BadArgument:
    return checks.BadArgument("format", "brax", f"{why}; take onnx or stablehlo")


def network_arguments(policy: Policy) -> dict[str, Any]:
    """What `brax.training.agents.ppo.networks.make_ppo_networks` is to be told, as JSON has it.

    `preprocess_observations_fn` is `brax.training.acme.running_statistics.normalize` beside it,
    and `activation` a function of that name in `flax.linen`.
    """
    config = policy.network.module.config  # type: ignore[attr-defined]
    size = policy.statistics.mean.shape[0]
    found = {
        "observation_size": size if policy.key is None else {policy.key: [size]},
        "action_size": policy.action.size,  # type: ignore[union-attr]
        "policy_hidden_layer_sizes": list(config.policy_layers),
        "activation": config.activation,
        "distribution_type": "tanh_normal" if config.squash else "normal",
        "noise_std_type": "log",
        "state_dependent_std": config.state_dependent_std,
    }
    keys = {"policy_obs_key": policy.key, "value_obs_key": policy.key}
    return found if policy.key is None else {**found, **keys}


def parameters(policy: Policy) -> tuple[Any, Any]:
    """(normaliser, policy's parameters) as brax's PPO has them.

    Raises:
      BadArgument: a deviation that brax's Gaussian cannot have.
    """
    from brax.training.acme import running_statistics

    config = policy.network.module.config  # type: ignore[attr-defined]
    layers = policy.params["params"]["mlp"]
    inner = ["input", *(f"hidden_{i}" for i in range(1, len(config.policy_layers)))]
    hidden = {f"hidden_{i}": layers[name] for i, name in enumerate(inner)}
    statistics = policy.statistics
    under = (lambda x: x) if policy.key is None else (lambda x: {policy.key: x})
    normalizer = running_statistics.init_state(under(statistics.mean)).replace(
        mean=under(statistics.mean), std=under(statistics.std()),
        summed_variance=under(statistics.variance * statistics.count),
    )
    output = layers["output"]
    if config.squash:
        std = np.exp(np.asarray(_log_std(policy), np.float64))
        hidden[f"hidden_{len(inner)}"] = _with_deviation(output, std)
        return normalizer, {"params": hidden}
    params: dict[str, Any] = {"MLP_0": hidden}
    if config.state_dependent_std:
        halves = [dict(zip(output, x, strict=True)) for x in zip(
            *(jnp.split(output[name], 2, axis=-1) for name in output), strict=True
        )]
        params["Dense_0"], params["Dense_1"] = halves
        params["Dense_1"]["bias"] += np.float32(np.log(config.initial_std))
    else:
        params |= {"Dense_0": output, "std_logparam": {"log_value": _log_std(policy)}}
    return normalizer, {"params": params}


def _log_std(policy: Policy) -> jax.Array:
    """[A], the same in all states."""
    found = policy.distribution(policy.params, policy.statistics, policy.statistics.mean)
    return found.log_std


def _with_deviation(output: dict[str, jax.Array], std: np.ndarray) -> dict[str, jax.Array]:
    """The last layer with A outputs more, from which brax makes `std` = softplus(x) + 0.001."""
    if not np.all(std > _LEAST_STD):
        raise _cannot(f"a standard deviation of {std.min():.2g} is below brax's {_LEAST_STD:g}")
    raw = np.log(np.expm1(std - _LEAST_STD)).astype(np.float32)
    kernel = output["kernel"]
    return {
        "kernel": jnp.concatenate([kernel, jnp.zeros_like(kernel)], axis=1),
        "bias": jnp.concatenate([output["bias"], raw]),
    }


def write(path: Path, acting: Acting) -> None:
    """Writes a policy.

    Raises:
      BadArgument: one that brax's networks cannot say.
    """
    from brax.io import model

    refuse_unlike(acting.policy)
    model.save_params(str(path), parameters(acting.policy))


class Runtime:
    """A file in brax's own inference function; its actions clipped to [-1, 1].

    Args:
      path: of the file.
      arguments: as `network_arguments` gives them.
      key: for samples; None for the mode.
    """

    def __init__(self, path: Path, arguments: dict[str, Any], key: jax.Array | None = None):
        from importlib.metadata import version

        self.name = f"brax {version('brax')}"
        self._act = inference_function(path, arguments, deterministic=key is None)
        self._key = jax.random.key(0) if key is None else key
        self._under = arguments.get("policy_obs_key")

    def batches(self, batches: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
        """The outputs of several batches, which share one draw of the noise."""
        observations = np.concatenate([batch[0] for batch in batches])
        found = np.asarray(jax.jit(self._act)(self._given(observations), self._key)[0])
        ends = np.cumsum([len(batch[0]) for batch in batches])[:-1]
        return [[np.clip(x, -1.0, 1.0)] for x in np.split(found, ends)]

    def _given(self, observations: np.ndarray) -> Any:
        return observations if self._under is None else {self._under: observations}


def inference_function(path: Path, arguments: dict[str, Any], deterministic: bool) -> Any:
    """brax's: (observations, key) -> (actions, extras)."""
    import flax.linen as nn
    from brax.io import model
    from brax.training.acme import running_statistics
    from brax.training.agents.ppo import networks

    made = networks.make_ppo_networks(
        **{**arguments, "activation": getattr(nn, arguments["activation"])},
        preprocess_observations_fn=running_statistics.normalize,
    )
    return networks.make_inference_fn(made)(model.load_params(str(path)), deterministic)
