"""brax's PPO on an environment of MuJoCo Playground, with the settings that Playground publishes.

    python -m scripts.benchmarks.playground_ppo NAME [--steps 5000000] [--seed 0]

One line of JSON per evaluation (128 episodes of brax's own evaluator, stochastic actions): steps,
seconds since the process began to train, return. The settings are those of
`mujoco_playground.config.dm_control_suite_params`; of the budget of 60 million steps and more only
`--steps` are taken, and evaluations and resets follow every update, which is 983,040 steps.
"""

from __future__ import annotations

import argparse
import functools
import json
import time

from scripts.benchmarks import brax_ppo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--steps", type=int, default=5_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    from brax.training.agents.ppo import networks
    from mujoco_playground import registry, wrapper
    from mujoco_playground.config import dm_control_suite_params

    settings = dict(dm_control_suite_params.brax_ppo_config(arguments.name))
    per_update = (
        settings["batch_size"] * settings["num_minibatches"] * settings["unroll_length"]
        * settings["action_repeat"]
    )
    updates = max(round(arguments.steps / per_update), 1)
    settings.update(
        num_timesteps=updates * per_update, num_evals=updates + 1, num_resets_per_eval=1,
        seed=arguments.seed,
    )
    factory = settings.pop("network_factory", {})
    start = time.perf_counter()

    def progress(step, metrics):
        print(json.dumps({
            "step": int(step), "seconds": round(time.perf_counter() - start, 1),
            "return": float(metrics["eval/episode_reward"]),
        }), flush=True)

    config = registry.get_default_config(arguments.name)
    if "impl" in config:
        config.impl = "jax"
    brax_ppo.train(
        registry.load(arguments.name, config=config),
        wrap_env_fn=wrapper.wrap_for_brax_training, progress_fn=progress,
        network_factory=functools.partial(networks.make_ppo_networks, **factory), **settings,
    )


if __name__ == "__main__":
    main()
