"""A ball on a rail that the action pushes: a MuJoCo model, and physics of one line."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import mujoco

XML = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="side" pos="0 -3 1" xyaxes="1 0 0 0 .3 1"/>
    <geom name="floor" type="plane" size="2 2 .1" rgba=".8 .8 .8 1"/>
    <body name="ball" pos="0 0 .3">
      <joint type="slide" axis="1 0 0"/>
      <geom type="sphere" size=".25" rgba=".9 .2 .1 1"/>
    </body>
  </worldbody>
</mujoco>
"""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    qpos: jax.Array
    obs: jax.Array
    reward: jax.Array
    done: jax.Array


class Slider:
    """It fails beyond ±1, and is broken beyond `breaks_above`: NaN."""

    action_size = 1
    dt = 0.1

    def __init__(self, breaks_above: float = 9.0):
        self.mj_model = mujoco.MjModel.from_xml_string(XML)
        self.breaks_above = breaks_above

    def reset(self, key):
        return self._state(jax.random.uniform(key, (1,), minval=-0.3, maxval=0.3))

    def step(self, state, action):
        return self._state(state.qpos + 0.02 + 0.05 * action)

    def _state(self, qpos):
        seen = jnp.where(qpos > self.breaks_above, jnp.nan, qpos)
        return State(seen, jnp.concatenate([seen, seen**2]), 1 - jnp.abs(seen[0]),
                     (jnp.abs(seen[0]) > 1).astype(jnp.float32))


def make(breaks_above: float = 9.0) -> Slider:
    return Slider(breaks_above)
