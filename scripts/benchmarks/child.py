"""One whole training process, to be timed from outside.

    python -m scripts.benchmarks.child equal-work jtrust|brax NAME BACKEND ENVS STEPS DEVICES
    python -m scripts.benchmarks.child until RETURN trpo|ppo|brax NAME
    python -m scripts.benchmarks.child memory NAME BACKEND ENVS

The last line printed is a JSON object.
"""

from __future__ import annotations

import json
import resource
import sys

import jax


class _Reached(Exception):
    """The return that was asked for."""


def equal_work(trainer: str, name: str, backend: str, envs: str, steps: str, devices: str) -> dict:
    """Trains for `steps` environment steps of `brax_ppo.EQUAL_WORK`."""
    from scripts.benchmarks import brax_ppo

    jax.config.update("jax_num_cpu_devices", int(devices))
    if trainer == "brax":
        from brax import envs as brax_envs

        brax_ppo.train(
            brax_envs.get_environment(name, backend=backend),
            **brax_ppo.equal_work(int(envs), int(steps)),
        )
        return {"steps": int(steps)}
    import jtrust
    from scripts.benchmarks.comparisons import equal_arguments

    result = jtrust.train(
        jtrust.make_env(name, backend=backend), total_steps=int(steps), devices=int(devices),
        **equal_arguments(int(envs)),
    )
    return {"steps": int(steps), "return": float(result.metrics["episode/return"][-1])}


def until(target: str, trainer: str, name: str) -> dict:
    """Trains until episodes return `target` on average, and says after how many steps."""
    if trainer == "brax":
        return _brax_until(float(target), name)
    import jtrust
    from jtrust.runs.cpu_devices import use_all_cores
    from jtrust.startup import collector_paused

    use_all_cores(None, None)  # as the command line does
    algorithm = {"trpo": jtrust.TRPO, "ppo": jtrust.PPO}[trainer]()
    with collector_paused():  # as `jtrust.train` does
        ours = jtrust.make_trainer(name, algorithm)
        state = ours.init(jax.random.key(0))
        iterate = jax.jit(ours.iterate, donate_argnums=0).lower(state).compile()
    for i in range(1, 1000):
        state, metrics = iterate(state)
        if metrics["episode/return"] >= float(target):
            return {"steps": i * ours.steps_per_iteration}
    raise SystemExit(f"{trainer} did not reach {target}")


def _brax_until(target: float, name: str) -> dict:
    """By brax's own evaluation, which is what its training shows; with its published settings."""
    from brax import envs as brax_envs

    from scripts.benchmarks import brax_ppo

    reached = {}

    def progress(step, metrics):
        if metrics["eval/episode_reward"] >= target:
            reached["steps"] = int(step)
            raise _Reached

    try:
        brax_ppo.train(
            brax_envs.get_environment(name), progress_fn=progress, **brax_ppo.PUBLISHED
        )
    except _Reached:
        return reached
    raise SystemExit(f"brax did not reach {target}")


def memory(name: str, backend: str, envs: str) -> dict:
    """Bytes that training holds, that its program needs at its highest, and that the process took.
    """
    import jtrust
    from jtrust.profiling.phases import ROLLOUT, make_parts

    trainer = jtrust.make_trainer(
        jtrust.make_env(name, backend=backend), jtrust.TRPO(), num_envs=int(envs)
    )
    state = trainer.init(jax.random.key(0))
    # Compiling needs more than small programs do when they run: compiled first, measured then.
    iterate = jax.jit(trainer.iterate, donate_argnums=0)
    compiled = iterate.lower(state).compile()
    analysis = compiled.memory_analysis()
    for _ in range(3):
        state, _ = compiled(state)
    jax.block_until_ready(state)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    (rollout,) = [part for part in make_parts(trainer, state) if part.name == ROLLOUT]
    held = sum(
        x.size * x.dtype.itemsize
        for x in jax.tree.leaves((state, jax.eval_shape(rollout.run)[1]))
        if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    )
    # With the state donated, what comes out lies where what went in lay.
    program = (
        analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
        + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    )
    return {"held": held, "program": program, "process": peak}


if __name__ == "__main__":
    command = {"equal-work": equal_work, "until": until, "memory": memory}[sys.argv[1]]
    print(json.dumps(command(*sys.argv[2:])))
