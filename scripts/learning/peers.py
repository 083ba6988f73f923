"""Other trainers on the same tasks: brax's PPO and rejax's PPO."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from scripts.learning.suite import Task

# brax, notebooks/training.ipynb (brax 0.14.2). Where it has settings for SAC alone (hopper,
# walker2d), those of its halfcheetah stand in, with SAC's discount, whose steps are as long; where
# it trains at another backend, they serve too.
_COMMON = dict(episode_length=1000, normalize_observations=True, learning_rate=3e-4)
_PENDULUMS = dict(
    reward_scaling=10, action_repeat=1, unroll_length=5, num_minibatches=32,
    num_updates_per_batch=4, discounting=0.97, entropy_cost=1e-2, num_envs=2048, batch_size=1024,
)
_HALFCHEETAH = dict(
    reward_scaling=1, action_repeat=1, unroll_length=20, num_minibatches=32,
    num_updates_per_batch=8, discounting=0.95, entropy_cost=1e-3, num_envs=2048, batch_size=512,
)
PUBLISHED = {
    "inverted_pendulum": _PENDULUMS,
    "inverted_double_pendulum": _PENDULUMS,
    "reacher": dict(
        reward_scaling=5, action_repeat=4, unroll_length=50, num_minibatches=32,
        num_updates_per_batch=8, discounting=0.95, entropy_cost=1e-3, num_envs=2048,
        batch_size=256,
    ),
    "ant": _PENDULUMS | dict(num_envs=4096, batch_size=2048),
    "halfcheetah": _HALFCHEETAH,
    "hopper": _HALFCHEETAH | dict(discounting=0.997),
    "walker2d": _HALFCHEETAH | dict(discounting=0.997),
    "humanoid": _PENDULUMS | dict(
        reward_scaling=0.1, unroll_length=10, num_updates_per_batch=8, entropy_cost=1e-3,
    ),
}


def brax_ppo(
    task: Task, settings: dict[str, Any], seed: int, most_seconds: float, evaluations: int,
    episodes: int, keep: Callable[[dict], None],
) -> dict[str, Any]:
    """Trains with the published settings; see `worker` for what comes back.

    The first evaluation is of the untrained policy. brax gives control back at evaluations alone,
    so when the time is over the process is ended, with what it has by then given to `keep`; where
    that is the untrained policy alone, it stands for the whole time.
    """
    from scripts.benchmarks import brax_ppo as mended

    suite, name = task.env.split("/")
    environment, published = (of_playground if suite == "playground" else of_brax)(name, task)
    published |= settings
    per_update = (
        published["batch_size"] * published["num_minibatches"] * published["unroll_length"]
        * published["action_repeat"]
    )
    updates = -(-task.steps // per_update)
    # Twice as many points as asked for: of the few updates that time allows none is passed over.
    between = -(-updates // (2 * evaluations))
    points = -(-updates // between)
    found: dict[str, list] = {"step": [], "seconds": [], "return": []}
    start = time.perf_counter()

    def progress(step: int, metrics: dict) -> None:
        seconds = time.perf_counter() - start - metrics["eval/walltime"]
        found["step"].append(int(step))
        # The untrained policy is there from the start.
        found["seconds"].append(round(float(seconds), 2) if step else 0.0)
        found["return"].append(float(f"{float(metrics['eval/episode_reward']):.5g}"))
        if step:
            keep({"evaluations": found})
        due = most_seconds - seconds
        if due <= 0:
            end()
        # Evaluations do not count, so what is left is counted afresh after each.
        timers.append(threading.Timer(due, end))
        timers[-1].daemon = True
        timers[-1].start()
        if len(timers) > 1:
            timers[-2].cancel()

    def end() -> None:
        if found["step"] == [0]:
            found["step"].append(0)
            found["seconds"].append(most_seconds)
            found["return"].append(found["return"][0])
        keep({"evaluations": found})
        os._exit(0)

    timers: list[threading.Timer] = []
    mended.train(
        environment, progress_fn=progress, seed=seed, num_eval_envs=episodes,
        deterministic_eval=True, num_evals=points + 1,
        num_timesteps=points * between * per_update, **published,
    )
    timers[-1].cancel()
    return {"evaluations": found}


def of_brax(name: str, task: Task) -> tuple[Any, dict[str, Any]]:
    from brax import envs

    return envs.get_environment(name, **task.make), _COMMON | PUBLISHED[name]


def of_playground(name: str, task: Task) -> tuple[Any, dict[str, Any]]:
    from brax.training.agents.ppo import networks
    from mujoco_playground import registry, wrapper
    from mujoco_playground.config import dm_control_suite_params

    settings = dict(dm_control_suite_params.brax_ppo_config(name))
    for ours in ("num_timesteps", "num_evals", "num_eval_envs"):
        settings.pop(ours, None)
    factory = settings.pop("network_factory", {})
    settings["network_factory"] = functools.partial(networks.make_ppo_networks, **factory)
    settings["wrap_env_fn"] = wrapper.wrap_for_brax_training
    # One reset of all environments per evaluation. The ten that Playground has, over 60 million
    # steps, would each be followed by a whole update: no evaluation before ten of them.
    settings["num_resets_per_eval"] = 1
    config = registry.get_default_config(name)
    if "impl" in config:
        config.impl = "jax"
    return registry.load(name, config=config), settings


def rejax_ppo(
    task: Task, settings: dict[str, Any], seed: int, evaluations: int, episodes: int
) -> dict[str, Any]:
    """rejax's PPO with its own settings for CartPole (the policy's mode is evaluated), compiled.

    It evaluates inside that program, so its seconds hold evaluations; between them they are
    shared out evenly.
    """
    import jax
    from rejax import PPO
    from rejax.evaluate import evaluate

    name = task.env.split("/")[1]
    # rejax, configs/gymnax/cartpole.yaml, but for the budget and how often it is evaluated.
    chosen = dict(
        env=name, agent_kwargs={"activation": "tanh"}, num_envs=5, num_steps=100, num_epochs=5,
        num_minibatches=5, learning_rate=7.5e-4, max_grad_norm=0.5, total_timesteps=task.steps,
        eval_freq=task.steps // evaluations, gamma=0.99, gae_lambda=0.95, clip_eps=0.2,
        ent_coef=0.01, vf_coef=0.5, skip_initial_evaluation=True,
    ) | settings
    trainer = PPO.create(**chosen)

    def callback(algorithm, state, key):
        def mode(observation, key):
            # Its networks flatten all axes but the first: a batch of one.
            params, batch = state.actor_ts.params, observation[None]
            return algorithm.actor.apply(params, batch, method="_action_dist").mode()[0]

        return evaluate(
            mode, key, algorithm.env, algorithm.env_params, episodes,
            algorithm.env_params.max_steps_in_episode,
        )

    trainer = trainer.replace(eval_callback=callback)
    start = time.perf_counter()
    program = jax.jit(trainer.train).lower(jax.random.key(seed)).compile()
    compiled = time.perf_counter() - start
    _, (_, returns) = jax.block_until_ready(program(jax.random.key(seed)))
    ran = time.perf_counter() - start - compiled
    count = len(returns)
    # Whole iterations only: rejax rounds up.
    per_iteration = chosen["num_envs"] * chosen["num_steps"]
    every = -(-chosen["eval_freq"] // per_iteration) * per_iteration
    return {"evaluations": {
        "step": [every * (i + 1) for i in range(count)],
        "seconds": [round(compiled + ran * (i + 1) / count, 2) for i in range(count)],
        "return": [float(f"{float(r.mean()):.5g}") for r in returns],
    }}
