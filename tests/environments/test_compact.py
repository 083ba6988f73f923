"""States without what nothing reads: the same experience from less."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.environments import batch
from jtrust.environments.compact import compact

pytestmark = pytest.mark.slow


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    position: jax.Array
    velocity: jax.Array
    picture: jax.Array  # nothing reads it
    pushes: jax.Array  # only itself does
    age: jax.Array  # ends the episode, through `info`
    obs: jax.Array
    reward: jax.Array
    done: jax.Array
    info: dict


class Cart:
    action_size = 1

    def reset(self, key):
        position, velocity = jax.random.uniform(key, (2,))
        return self.state(position, velocity, jnp.float32(0), jnp.int32(0))

    def step(self, state, action):
        return self.state(
            state.position + state.velocity, state.velocity + action[0],
            state.pushes + 1.0, state.age + 1,
        )

    @staticmethod
    def state(position, velocity, pushes, age):
        return State(
            position, velocity, jnp.full((5, 5), position), pushes, age,
            {"state": position[None], "unused": velocity[None] * jnp.ones(3)},
            -position**2, jnp.float32(0.0), {"truncation": age >= 4, "note": position},
        )


def test_what_is_read_stays_and_the_rest_is_none():
    environment = jtrust.describe(Cart(), "cart", policy_observation="state")
    state = jax.eval_shape(compact(environment).reset, jax.random.key(0))
    there = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)}
    assert there == {
        ".position", ".velocity", ".age", ".obs['state']", ".reward", ".done",
        ".info['truncation']",
    }


@pytest.mark.parametrize(("name", "options", "left"), [
    ("brax/inverted_pendulum", {"backend": "generalized"}, 0.7),
    pytest.param("brax/inverted_pendulum", {"backend": "mjx"}, 0.2, marks=pytest.mark.nightly),
])
def test_brax_gives_the_same_experience_from_less(name, options, left):
    environment = jtrust.make_env(name, episode_length=12, **options)
    small = compact(environment)

    def experience(environment):
        keys = jax.random.split(jax.random.key(0), 8)

        def step(episodes, x):
            action, t = x
            moved, outcome = batch.step(environment, episodes, action)
            end = outcome.termination | outcome.truncation
            starts = batch.reset_states(environment, jax.vmap(jax.random.fold_in, (0, None))(
                keys, t
            ))
            return batch.restart(moved, starts, end, 0), outcome

        action = jax.random.uniform(jax.random.key(1), (16, 8, environment.action.size))
        begun = batch.begin(batch.reset_states(environment, keys))
        return jax.jit(lambda: jax.lax.scan(step, begun, (action, jnp.arange(16))))()

    (all_of_it, full), (rest, less) = experience(environment), experience(small)
    for a, b in zip(jax.tree.leaves(full), jax.tree.leaves(less), strict=True):  # outcomes
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    assert full.termination.any() or full.truncation.any()
    size = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))  # noqa: E731
    assert size(rest) < left * size(all_of_it)
