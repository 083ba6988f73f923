"""Two iterations of every algorithm in every environment that needs no download; for nightly runs.

    python scripts/all_environments.py [--suite SUITE] [--only TEXT] [--seconds N]

Each environment runs in a process of its own with a time limit, once on each backend that works on
this machine. Prints a table; the exit status is the number of those that failed, at most 100.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time


def train_in(name: str, backend: str | None) -> dict[str, float]:
    """{algorithm: seconds of its two iterations}; raises where one is not as it should be."""
    import jax
    import numpy as np

    import jtrust
    from jtrust.algorithms import ALGORITHMS

    environment = jtrust.make_env(name, backend=backend)
    seconds = {}
    for label, algorithm in ALGORITHMS.items():
        start = time.perf_counter()
        trainer = jtrust.make_trainer(
            environment, algorithm(), num_envs=16, unroll_length=8, devices=1
        )
        state = trainer.init(jax.random.key(0))
        for _ in range(2):
            state, metrics = trainer.iterate(state)
        assert metrics["policy/kl"] <= algorithm().max_kl, f"{label}: KL {metrics['policy/kl']}"
        assert metrics["environment/nonfinite"] == 0, f"{label}: NaN or infinity"
        for leaf in jax.tree.leaves((state.policy, state.value, state.observation_moments)):
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
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
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
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    failed = 0
    for name, backend in combinations(options.suite, options.only):
        good, said = run(name, backend, options.seconds)
        failed += not good
        print(f"{'ok' if good else 'FAILED':7}{name:45}{backend or '-':13}{said}", flush=True)
    print(f"{failed} failed")
    return min(failed, 100)


if __name__ == "__main__":
    sys.exit(main())
