"""Two iterations of every algorithm in every environment that needs no download; for nightly runs.

    python scripts/benchmarks/all_environments.py [--suite SUITE] [--only TEXT] \
        [--seconds N] [--workers N]

Each environment runs in a process of its own with a time limit, once on each backend that works on
this machine. Prints a table; the exit status is the number of those that failed, at most 100.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

# It is compiling that takes the time here, so it is done without optimisation, except for what then
# runs slower than it would have compiled: pusher on MJX did not end in 900 s, and does in 120 with.
_OPTIMIZED = ("brax/pusher",)


def train_in(name: str, backend: str | None) -> dict[str, float]:
    """{algorithm: seconds of its two iterations}; raises where one is not as it should be.

    An iteration's halves are compiled apart: the rollout, which is most of it and the same for
    every algorithm, once; the update for each.
    """
    import jax
    import numpy as np

    import jtrust
    from jtrust.algorithms import ALGORITHMS
    from jtrust.training.mesh import REPLICATED, STATE_SPEC, per_shard
    from jtrust.training.random_keys import environment_keys

    environment = jtrust.make_env(name, backend=backend)
    trainers = {
        label: jtrust.make_trainer(
            environment, algorithm(), num_envs=16, unroll_length=8, devices=1
        )
        for label, algorithm in ALGORITHMS.items()
    }
    first = next(iter(trainers.values()))

    def gather(state):
        keys = environment_keys(state, first.collection.envs_per_device)
        state, trajectory, totals = first.collection(state, keys)
        estimates = first.estimation(state, trajectory)
        state, batch, _ = first.preparation(state, trajectory, estimates, keys)
        state = dataclasses.replace(state, iteration=state.iteration + 1)
        return state, batch, totals.nonfinite

    gather = jax.jit(
        per_shard(gather, first.mesh, (STATE_SPEC,), (STATE_SPEC, REPLICATED, REPLICATED))
    )
    seconds = {}
    for label, trainer in trainers.items():
        start = time.perf_counter()
        update = jax.jit(per_shard(
            trainer.iteration.update, trainer.mesh, (STATE_SPEC, REPLICATED),
            (STATE_SPEC, REPLICATED),
        ))
        state = trainer.init(jax.random.key(0))
        for _ in range(2):
            # The rollout knows nothing of the optimiser, whose shape is the algorithm's own.
            moved, batch, nonfinite = gather(dataclasses.replace(state, policy_optimizer=()))
            state, metrics = update(
                dataclasses.replace(moved, policy_optimizer=state.policy_optimizer), batch
            )
            kl, limit = metrics["policy/kl"], trainer.algorithm.max_kl
            assert kl <= limit, f"{label}: KL {kl} of {limit}"
            assert nonfinite == 0, f"{label}: NaN or infinity"
        for leaf in jax.tree.leaves((state.policy, state.value, state.observation_statistics)):
            assert np.all(np.isfinite(leaf)), f"{label}: weights that are not finite"
        seconds[label] = time.perf_counter() - start
    return seconds


def combinations(suite: str | None, only: str) -> list[tuple[str, str | None]]:
    """(name, backend) of all that can be made here."""
    from jtrust.environments import SUITES

    found = []
    for label, module in SUITES.items():
        if suite not in (None, label):
            continue
        for name in module.names():
            # A remark of a download means that something is missing.
            if only not in f"{label}/{name}" or "download" in module.remark(name):
                continue
            backends = [b for b in module.backends(name) if b != "warp"] or [None]
            found += [(f"{label}/{name}", backend) for backend in backends]
    return found


def run(name: str, backend: str | None, limit: float) -> tuple[bool, str]:
    """Whether it went well, and what to say of it."""
    command = [sys.executable, __file__, "--child", name, *([backend] if backend else [])]
    level = int(name in _OPTIMIZED)
    flags = {"XLA_FLAGS": f"--xla_backend_optimization_level={level}"} | os.environ
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, check=False, env=flags
        )
    except subprocess.TimeoutExpired:
        return False, f"more than {limit:.0f} s"
    if done.returncode:
        return False, (done.stderr.strip().splitlines() or ["no message"])[-1][:150]
    seconds = json.loads(done.stdout.splitlines()[-1])
    return True, "  ".join(f"{label} {s:.1f} s" for label, s in seconds.items())


def main() -> int:
    if len(sys.argv) > 2 and sys.argv[1] == "--child":
        print(json.dumps(train_in(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", help="brax, playground or gymnax; by default all")
    parser.add_argument("--only", default="", help="only names that contain this")
    parser.add_argument("--seconds", type=float, default=900, help="time limit for each")
    parser.add_argument("--workers", type=int, default=1, help="environments side by side")
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    failed = 0
    found = combinations(options.suite, options.only)
    with ThreadPoolExecutor(options.workers) as pool:
        results = pool.map(lambda one: run(*one, options.seconds), found)
        for (name, backend), (good, said) in zip(found, results, strict=True):
            failed += not good
            print(f"{'ok' if good else 'FAILED':7}{name:45}{backend or '-':13}{said}", flush=True)
    print(f"{failed} failed")
    return min(failed, 100)


if __name__ == "__main__":
    sys.exit(main())
