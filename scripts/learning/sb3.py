"""sb3-contrib's TRPO on a task of ours, through a plain vector-environment adapter."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import jax
import numpy as np
from sb3_contrib import TRPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from jtrust.environments import batch, make_env
from scripts.learning.suite import Task


class BatchedEnvironment(VecEnv):
    """jtrust's batched environments as stable-baselines3 wants them: arrays on the host."""

    def __init__(self, environment: Any, num_envs: int, seed: int):
        size, action = environment.observation.shape[0], environment.action
        super().__init__(
            num_envs,
            gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32),
            gymnasium.spaces.Box(-1.0, 1.0, (action.size,), np.float32),
        )
        self._key = jax.random.key(seed)
        variation = batch.variations(environment, jax.random.split(self._next_key(), num_envs))
        self._starts = jax.jit(lambda key: batch.reset_states(
            environment, jax.random.split(key, num_envs), variation
        ))
        self._begin = jax.jit(lambda starts: batch.begin(starts, variation))

        @jax.jit
        def step(episodes, starts, action):
            moved, outcome = batch.step(environment, episodes, action)
            ended = outcome.termination | outcome.truncation
            return outcome, ended, batch.restart(moved, starts, ended, 0)

        self._step = step

    def _next_key(self):
        self._key, key = jax.random.split(self._key)
        return key

    def reset(self):
        self._episodes = self._begin(self._starts(self._next_key()))
        self._fresh = self._starts(self._next_key())
        return np.asarray(self._episodes.observation)

    def step_async(self, actions):
        self._action = actions

    def step_wait(self):
        outcome, ended, self._episodes = self._step(
            self._episodes, self._fresh, self._action
        )
        ended, last = np.asarray(ended), np.asarray(outcome.last_observation)
        truncated = np.asarray(outcome.truncation)
        if ended.any():
            self._fresh = self._starts(self._next_key())
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(ended):
            infos[i] = {
                "terminal_observation": last[i], "TimeLimit.truncated": bool(truncated[i]),
            }
        # A copy: it adds the value of what a time limit cut off to the rewards in place.
        return np.asarray(self._episodes.observation), np.array(outcome.reward), ended, infos

    def close(self):
        pass

    def get_attr(self, attr_name, indices=None):
        return [None] * self.num_envs

    def set_attr(self, attr_name, value, indices=None):
        raise AttributeError(f"{attr_name}: the environments are one compiled batch")

    def env_method(self, method_name, *args, indices=None, **kwargs):
        raise AttributeError(f"{method_name}: the environments are one compiled batch")

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False] * self.num_envs


def trpo(
    task: Task, settings: dict[str, Any], seed: int, most_seconds: float, evaluations: int,
    episodes: int,
) -> dict[str, Any]:
    """Trains with sb3-contrib's own defaults in 8 environments."""
    import torch

    torch.set_num_threads(1)
    environment = make_env(task.env, **task.make)
    training = BatchedEnvironment(environment, 8, seed)
    testing = BatchedEnvironment(environment, episodes, 1_000_000 + seed)
    found: dict[str, list] = {"step": [], "seconds": [], "return": []}
    every = task.steps // evaluations
    start = time.perf_counter()

    class Evaluate(BaseCallback):
        spent, due = 0.0, 0

        def _on_step(self) -> bool:
            seconds = time.perf_counter() - start - self.spent
            if self.num_timesteps >= self.due or seconds > most_seconds:
                self.evaluate()
                self.due += every
            return seconds <= most_seconds

        def evaluate(self) -> None:
            begun = time.perf_counter()
            found["step"].append(self.num_timesteps)
            found["seconds"].append(round(begun - start - self.spent, 2))
            found["return"].append(_mean_return(self.model, testing))
            self.spent += time.perf_counter() - begun

        def _on_training_end(self) -> None:  # behind the last update, and not before it
            self.evaluate()

    model = TRPO("MlpPolicy", training, seed=seed, device="cpu", **settings)
    model.learn(task.steps, callback=Evaluate())
    return {"evaluations": found}


def _mean_return(model: Any, environment: BatchedEnvironment) -> float:
    observation = environment.reset()
    running, returns = np.ones(environment.num_envs, bool), np.zeros(environment.num_envs)
    while running.any():
        action, _ = model.predict(observation, deterministic=True)
        environment.step_async(action)
        observation, reward, ended, _ = environment.step_wait()
        returns += running * reward
        running &= ~ended
    return float(f"{returns.mean():.5g}")
