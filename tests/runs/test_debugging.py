"""JAX's own switches for debugging."""

import json

import jax
import pytest

import jtrust

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("algorithm", [
    jtrust.TRPO(), pytest.param(jtrust.PPO(), marks=pytest.mark.nightly),
], ids=lambda a: a.name)
def test_training_makes_no_nan_of_its_own(point, tmp_path, algorithm):
    """Under JAX_DEBUG_NANS each is an error, wherever it comes from."""
    with jax.debug_nans(True):
        jtrust.train(
            point, algorithm, num_envs=16, unroll_length=2, total_steps=64, devices=1,
            run_dir=tmp_path / "run",
        )
        jtrust.resume(tmp_path / "run", 128, env=point, devices=1)
        jtrust.evaluate(tmp_path / "run", env=point, episodes=4)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["episode/return"] is None and rows[0]["episode/length"] is None
