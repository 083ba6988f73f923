"""Eight virtual CPU devices for every test, and small things that many tests share."""

import os
import tempfile

# Before jax is imported: the number of devices is fixed from then on.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
# Most of a test's time is compiling, of programs that then run for a moment; all pass with it.
if "xla_backend_optimization_level" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# A key of the tests' own signs their runs, and not the user's.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _STATE = tempfile.TemporaryDirectory(prefix="jtrust-tests-state-")
    os.environ["XDG_STATE_HOME"] = _STATE.name
# Many tests compile the same programs; each is compiled once, for all of pytest-xdist's workers.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="jtrust-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import dataclasses

import jax
import jax.numpy as jnp
import pytest


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PointState:
    position: jax.Array
    obs: jax.Array
    reward: jax.Array
    done: jax.Array


class Point:
    """A point on a line, pushed by the action; it fails beyond ±2 and is paid for being near 0.

    Small enough to compile in a moment, with real terminations; what is about physics is tested
    on Brax.
    """

    action_size = 1
    observation_size = 2

    def reset(self, key):
        return self._state(jax.random.uniform(key, (), minval=-0.5, maxval=0.5), jnp.float32(0.0))

    def step(self, state, action):
        return self._state(state.position + 0.3 * action[0], action[0])

    def _state(self, position, action):
        return PointState(
            position,
            jnp.stack([position, action]),
            jnp.exp(-(position**2)) - 0.01 * action**2,
            (jnp.abs(position) > 2.0).astype(jnp.float32),
        )


@pytest.fixture(scope="session")
def point():
    return Point()
