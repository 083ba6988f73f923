"""Changes to an environment: plain functions from `Environment` to `Environment`.

Each also takes an object that `describe` would take.
They compose, work with dictionaries of observations, and keep to the environment's own variation.
A wrapped environment's name tells what was done to it; to resume a run in one, pass it as `env`.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtrust import checks
from jtrust.environments.base import Environment, describe, own_truncation, select
from jtrust.environments.batch import strong
from jtrust.environments.costs import check_costs, cost_names, state_costs, step_costs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Wrapped:
    """The state of a wrapped environment.

    Attributes:
      inner: the state of the environment inside.
      obs, reward, done: as seen from outside.
      own: what the wrapper itself carries.
      costs: as seen from outside, by name; None for those of the state inside.
    """

    inner: Any
    obs: Any
    reward: jax.Array
    done: jax.Array
    own: Any = ()
    costs: dict[str, jax.Array] | None = None

    @property
    def cost(self) -> dict[str, jax.Array]:
        return state_costs(self.inner) if self.costs is None else self.costs

    @property
    def info(self) -> Any:
        return getattr(self.inner, "info", {})


def action_repeat(environment: Any, n: int) -> Environment:
    """Each action is taken `n` times, or until the episode ends; rewards and costs are summed.

    The episode's length then counts actions: the least number of them that take as much time.
    """
    environment = _described(environment)
    n = checks.whole_number("n", n, example=2)

    def reset(key, *variation):
        state = environment.reset(key, *variation)
        return _plain(state, costs=step_costs(environment.costs, state) or None)

    def step(state, action, *variation):
        def once(carry, _):
            state, ended = carry
            new = jax.tree.map(strong, _arrays(environment.step(state, action, *variation)), state)
            gained = new.reward, step_costs(environment.costs, new)
            gained = jax.tree.map(lambda x: jnp.where(ended, 0.0, x), gained)
            new = jax.tree.map(lambda a, b: jnp.where(ended, a, b), state, new)
            return (new, ended | new.done.astype(bool) | own_truncation(new)), gained

        start = (jax.tree.map(strong, _arrays(state.inner)), jnp.zeros((), bool))
        (new, _), gained = jax.lax.scan(once, start, length=n)
        reward, costs = jax.tree.map(jnp.sum, gained)
        return _plain(new, reward=reward, costs=costs or None)

    return _changed(
        environment, f"action_repeat({n})", reset, step,
        episode_length=-(-environment.episode_length // n),
        dt=None if environment.dt is None else n * environment.dt,
    )


def frame_stack(environment: Any, n: int, differences: bool = False) -> Environment:
    """Observations become the last `n`, [n O], oldest first; at the start, the first `n` times.

    Args:
      environment: whose observation is [O], or a dictionary of such.
      n: how many.
      differences: of all but the newest, show by how much the next one differs. A network can
        tell both from either, but of observations close in time the difference is a small part
        of each, and the running normaliser gives it a scale of its own.
    """
    environment = _described(environment)
    n = checks.whole_number("n", n, example=4)
    checks.truth_value("differences", differences)

    def shown(stack):
        if not differences:
            return stack

        def of(x):
            frames = x.reshape(n, -1)
            return jnp.concatenate([jnp.diff(frames, axis=0), frames[-1:]]).reshape(-1)

        return jax.tree.map(of, stack)

    def reset(key, *variation):
        state = environment.reset(key, *variation)
        stack = jax.tree.map(lambda x: jnp.tile(x, n), environment.used(state.obs))
        return _plain(state, obs=shown(stack), own=stack if differences else ())

    def step(state, action, *variation):
        new = environment.step(state.inner, action, *variation)
        stack = jax.tree.map(
            lambda old, x: jnp.concatenate([old[x.shape[0]:], x]),
            state.own if differences else state.obs, environment.used(new.obs),
        )
        return _plain(new, obs=shown(stack), own=stack if differences else ())

    observation = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((n * x.shape[0],), x.dtype),
        environment.used(environment.observation),
    )
    what = f"frame_stack({n}{',differences' if differences else ''})"
    return _changed(environment, what, reset, step, observation=observation)


def hide(environment: Any, indices: Sequence[int]) -> Environment:
    """The numbers at `indices` are left out of what the policy reads, such as velocities.

    Of a dictionary of observations, those that the policy does not read stay whole.

    Args:
      environment: whose observation is [O], or a dictionary of such.
      indices: whole numbers from 0 to O - 1, not all of them.

    Raises:
      BadArgument: no such numbers, or none left.
    """
    environment = _described(environment)
    name = environment.policy_key
    whole = environment.used(environment.observation)
    size = select(whole, name).shape[0]
    hidden = _indices(indices, size)
    kept = np.asarray([i for i in range(size) if i not in hidden])

    def seen(obs):
        obs = environment.used(obs)
        return obs[kept] if name is None else {**obs, name: obs[name][kept]}

    def reset(key, *variation):
        state = environment.reset(key, *variation)
        return _plain(state, obs=seen(state.obs))

    def step(state, action, *variation):
        new = environment.step(state.inner, action, *variation)
        return _plain(new, obs=seen(new.obs))

    observation = jax.eval_shape(seen, whole)
    text = ",".join(map(str, sorted(hidden)))
    return _changed(environment, f"hide({text})", reset, step, observation=observation)


def _indices(indices: Any, size: int) -> set[int]:
    remedy = f"must be some of the numbers 0 to {size - 1}, and not all, such as (0,)"
    try:
        found = {operator.index(i) for i in indices}
    except TypeError as error:
        raise checks.BadArgument("indices", indices, remedy) from error
    if not found or not found < set(range(size)):
        raise checks.BadArgument("indices", indices, remedy)
    return found


def scale_reward(environment: Any, scale: float) -> Environment:
    """Rewards are multiplied by `scale`."""
    environment = _described(environment)
    scale = _number("scale", scale, minimum=-1e12, example=0.1)

    def scaled(state):
        return _plain(state, reward=state.reward * scale)

    def reset(key, *variation):
        return scaled(environment.reset(key, *variation))

    def step(state, action, *variation):
        return scaled(environment.step(state.inner, action, *variation))

    return _changed(environment, f"scale_reward({scale:g})", reset, step)


def observation_noise(environment: Any, std: float) -> Environment:
    """Gaussian noise of deviation `std` on what the policy reads.

    Of a dictionary of observations, those that the policy does not read stay exact.
    """
    environment = _described(environment)
    std = _number("std", std, minimum=0, example=0.01)

    def noisy(key, obs):
        if environment.policy_key is not None:
            name = environment.policy_key
            return {**obs, name: obs[name] + std * jax.random.normal(key, obs[name].shape)}
        return obs + std * jax.random.normal(key, obs.shape)

    def seen(state, key):
        key, noise_key = jax.random.split(key)
        return _plain(state, obs=noisy(noise_key, environment.used(state.obs)), own=key)

    def reset(key, *variation):
        start_key, noise_key = jax.random.split(key)
        return seen(environment.reset(start_key, *variation), noise_key)

    def step(state, action, *variation):
        return seen(environment.step(state.inner, action, *variation), state.own)

    key = jax.eval_shape(lambda: jax.random.key(0))
    observation = jax.eval_shape(noisy, key, environment.used(environment.observation))
    return _changed(
        environment, f"observation_noise({std:g})", reset, step, observation=observation
    )


def add_costs(environment: Any, costs: Mapping[str, Callable[..., Any]]) -> Environment:
    """States tell costs, made from what happens in a step; those that they told before stay.

    Args:
      environment: what to change.
      costs: by name, (state before, action as the environment takes it, state after) -> cost [].

    Raises:
      BadArgument: names or values that will not do, or a name that is taken.
    """
    environment = _described(environment)
    if not isinstance(costs, Mapping) or not costs:
        raise checks.BadArgument(
            "costs", costs, "must be functions by name, (state, action, next state) -> cost []"
        )
    for name, function in costs.items():
        if not callable(function):
            raise checks.BadArgument(f"costs[{name!r}]", function, "must be a function")
        if name in environment.costs:
            raise checks.BadArgument("costs", name, f"{environment.name} has such a cost already")

    def reset(key, *variation):
        state = environment.reset(key, *variation)
        return _plain(state, costs={
            **step_costs(environment.costs, state), **dict.fromkeys(costs, jnp.float32(0.0))
        })

    def step(state, action, *variation):
        new = environment.step(state.inner, action, *variation)
        told = {
            name: jnp.asarray(cost(state.inner, action, new), jnp.float32)
            for name, cost in costs.items()
        }
        return _plain(new, costs={**step_costs(environment.costs, new), **told})

    after = jax.eval_shape(lambda key, a, v: step(reset(key, *v), a, *v), *_arguments(environment))
    check_costs("step", after)
    what = f"add_costs({','.join(sorted(costs))})"
    return _changed(environment, what, reset, step, costs=cost_names(after))


def penalize_costs(environment: Any, weights: Mapping[str, float]) -> Environment:
    """Rewards become reward - Σ w cost; costs stay as they are.

    Args:
      environment: what to change.
      weights: w of some of its costs, by name.
    """
    environment = _described(environment)
    if not isinstance(weights, Mapping) or not weights:
        raise checks.BadArgument("weights", weights, "must be numbers by names of costs")
    for name, weight in weights.items():
        checks.one_of("weights", name, environment.costs, f"cost of {environment.name}")
        _number(f"weights[{name!r}]", weight, minimum=0, example=0.1)

    def reset(key, *variation):
        return _plain(environment.reset(key, *variation))

    def step(state, action, *variation):
        new = environment.step(state.inner, action, *variation)
        found = step_costs(environment.costs, new)
        paid = sum(weight * found[name] for name, weight in weights.items())
        return _plain(new, reward=new.reward - paid)

    shown = ",".join(f"{name}={weight:g}" for name, weight in weights.items())
    return _changed(environment, f"penalize_costs({shown})", reset, step)


def _arguments(environment: Environment) -> tuple[Any, Any, tuple]:
    """Shapes of what `reset` and `step` take: (a key, an action, the variation if there is one)."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    action = jax.eval_shape(lambda k: environment.action.to_environment(
        environment.action.sample(k, ())
    ), key)
    if environment.vary is None:
        return key, action, ()
    vary = environment.vary
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    return key, action, (jax.eval_shape(lambda k: jax.tree.map(lambda x: x[0], vary(k)), keys),)


def _number(name: str, value: Any, **bounds: Any) -> float:
    """One number, and no array, whatever passes as a hyperparameter."""
    if not checks.is_number(value):
        raise checks.BadArgument(name, value, f"must be one number, such as {bounds['example']:g}")
    checks.real_number(name, value, **bounds)
    return float(value)


def _described(environment: Any) -> Environment:
    """An environment as it is, or what `describe` makes of an object."""
    if isinstance(environment, str):
        raise checks.BadArgument(
            "environment", environment, "must be an environment, as of jtrust.make_env(name)"
        )
    return describe(environment, type(environment).__name__)


def _plain(
    state: Any, obs: Any = None, reward: Any = None, own: Any = (),
    costs: dict[str, jax.Array] | None = None,
) -> Wrapped:
    return Wrapped(
        state, state.obs if obs is None else obs, state.reward if reward is None else reward,
        state.done, own, costs,
    )


def _arrays(state: Any) -> Any:
    """A state may hold plain Python numbers before it has been through a transformation."""
    return jax.tree.map(jnp.asarray, state)


def _changed(
    environment: Environment, what: str, reset: Callable, step: Callable, **changes: Any
) -> Environment:
    return dataclasses.replace(
        environment, name=f"{environment.name}+{what}", reset=reset, step=step, **changes
    )
