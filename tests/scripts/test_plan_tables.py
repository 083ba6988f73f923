"""The tables of programs: brax's PPO as a program, and what is written of rows."""

import json

import jax
import pytest

from jtrust.planning.collectives import count_collectives
from scripts.benchmarks import plan_tables
from scripts.benchmarks.brax_program import compile_brax_ppo


@pytest.mark.slow
@pytest.mark.nightly
def test_braxs_training_step_is_compiled_for_the_devices_that_are_given():
    from brax import envs

    settings = dict(
        episode_length=20, num_envs=16, batch_size=8, num_minibatches=2, unroll_length=3,
        num_updates_per_batch=2, action_repeat=1, normalize_observations=True,
    )
    pmap = jax.pmap
    found = compile_brax_ppo(envs.get_environment("fast"), settings, jax.devices()[:2])
    assert jax.pmap is pmap
    assert "physics" in found.text and found.memory_bytes > 0
    # At least the gradients of each minibatch are added up between devices.
    assert count_collectives(found.text)["all-reduce"] >= 2 * 2


@pytest.mark.parametrize(("num_envs", "batch"), [(64, 16), (128, 16), (4096, 256)])
def test_a_batch_of_braxs_holds_every_environment(num_envs, batch):
    settings = plan_tables.with_environments(
        {"batch_size": 16, "num_minibatches": 16, "num_envs": 1}, num_envs
    )
    assert (settings["num_envs"], settings["batch_size"]) == (num_envs, batch)


def test_tables_scale_to_the_same_number_of_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_tables, "ROOT", tmp_path)
    monkeypatch.setattr(plan_tables, "DATA", tmp_path)
    monkeypatch.setattr(plan_tables, "TABLES", tmp_path / "tables.md")
    common = {"memory_bytes": 5e6, "compile_seconds": 7.4, "jax": "0", "fits": True}
    steps = 4096 * 64
    rows = [
        dict(target="h100", env="ant", algorithm="trpo", steps=steps, launches=1000,
             phases={"physics": 640, "rollout": 50, "fresh_starts": 20, "value_fit": 60,
                     "line_search": 30, "rest": 200}, physics_launches_per_step=10,
             collectives={}, **common),
        dict(target="h100", env="ant", algorithm="brax-ppo", steps=steps // 2, launches=700,
             phases={"physics": 600, "rest": 100}, physics_launches_per_step=20, collectives={},
             **common),
        dict(target="v5e:16x16", env="ant", algorithm="trpo", steps=65536 * 64, launches=None,
             phases=None, physics_launches_per_step=None, collectives={"all-reduce": 5}, **common),
    ]
    for row in rows:
        path = plan_tables.Row(row["target"], row["env"], row["algorithm"]).path
        path.write_text(json.dumps(row))
    plan_tables.make_tables()
    text = (tmp_path / "tables.md").read_text()
    assert "| ant | trpo | 1,000 | 10 | 640 | 50 | 20 | 60 | 230 | 5 MB | 7 s |" in text
    assert "| ant | brax-ppo | 1,400 | 20 | 1,200 | - | - | - | 200 | 5 MB | 7 s |" in text
    assert "| ant | trpo | 5 MB | 5 | none | 7 s |" in text
    assert "compiled, not run" in text


def test_every_row_has_a_name_of_its_own():
    rows = plan_tables.rows()
    assert len({row.path for row in rows}) == len(rows) == 2 * (4 * 4 + 3)
