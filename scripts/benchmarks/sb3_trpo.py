"""sb3-contrib's TRPO policy update on a batch of ours (torch, on the CPU)."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium
import numpy as np
import torch
from sb3_contrib import TRPO
from stable_baselines3.common.logger import Logger


class _NoEnvironment(gymnasium.Env):
    """Spaces alone: the batch comes from elsewhere."""

    def __init__(self, inputs: int, actions: int):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (inputs,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (actions,), np.float32)

    def reset(self, *, seed=None, options=None):
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, action):
        raise NotImplementedError


def make_update(observation, action, advantage) -> Callable[[], None]:
    """A call that updates the policy once, always from the same start, and leaves the values be.

    Args:
      observation: [B, O].
      action: [B, A].
      advantage: [B].
    """
    observation, action, advantage = (np.asarray(x) for x in (observation, action, advantage))
    count = len(observation)
    environment = _NoEnvironment(observation.shape[1], action.shape[1])
    model = TRPO("MlpPolicy", environment, n_steps=count, n_critic_updates=0, cg_max_steps=10,
                 target_kl=0.01, seed=0, device="cpu")
    model.set_logger(Logger(folder=None, output_formats=[]))
    buffer = model.rollout_buffer
    buffer.reset()
    buffer.observations[:, 0], buffer.actions[:, 0] = observation, action
    buffer.advantages[:, 0] = advantage
    with torch.no_grad():
        distribution = model.policy.get_distribution(torch.as_tensor(observation))
        buffer.log_probs[:, 0] = distribution.log_prob(torch.as_tensor(action)).numpy()
    buffer.pos, buffer.full = count, True
    start = {k: v.clone() for k, v in model.policy.state_dict().items()}

    def update() -> None:
        model.policy.load_state_dict(start)
        model.train()
        if not model.logger.name_to_value["train/is_line_search_success"]:
            raise RuntimeError("sb3-contrib refused its update: not the work to be timed")

    return update
