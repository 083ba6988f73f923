"""What is done with runs before they are kept."""

import argparse
import json
import subprocess
import time
from pathlib import Path

import pytest

from scripts import learning_curves
from scripts.learning.peers import PUBLISHED
from scripts.learning.suite import SUITE
from scripts.learning_curves import count_compiling, fill_in


def run(start, points, step=(100, 200)):
    return {
        "train": {"step": [10, 20], "seconds": [start, start + 1]},
        "evaluations": {"step": list(step), "seconds": list(points), "return": [1.0, 2.0]},
    }


def test_a_run_that_found_its_program_compiled_is_counted_the_time_all_the_same():
    first, later = run(30.0, [40.0, 60.0]), run(5.5, [15.0, 36.0])
    count_compiling(later, first)
    assert later["train"]["seconds"] == [30.0, 31.0]
    assert later["evaluations"]["seconds"] == [39.5, 60.5]
    assert later["counted_for_compiling"] == 24.5
    assert first == run(30.0, [40.0, 60.0])


def test_another_trainers_untrained_policy_stays_at_its_time():
    first = {"evaluations": {"step": [0, 100, 200], "seconds": [1.0, 50.0, 80.0]}}
    later = {"evaluations": {"step": [0, 100, 200], "seconds": [2.0, 20.0, 51.0]}}
    count_compiling(later, first)
    assert later["evaluations"]["seconds"] == pytest.approx([2.0, 50.0, 81.0])


def test_nothing_is_counted_where_time_ended_before_the_first_update():
    first = {"evaluations": {"step": [0, 100], "seconds": [1.0, 50.0]}}
    later = {"evaluations": {"step": [0, 0], "seconds": [2.0, 300.0]}}
    count_compiling(later, first)
    assert later == {"evaluations": {"step": [0, 0], "seconds": [2.0, 300.0]}}


def test_on_a_gpu_other_tasks_are_run_and_what_is_given_stays():
    given = argparse.Namespace(gpu=True, tasks=None, seeds=None, seconds=None, workers=None)
    fill_in(given)
    assert given.tasks == ["ant-gpu", "halfcheetah-gpu", "humanoid-gpu"]
    assert (given.seeds, given.workers) == (3, 1)

    given = argparse.Namespace(gpu=False, tasks=None, seeds=2, seconds=None, workers=None)
    fill_in(given)
    assert len(given.tasks) == 12
    assert not any(SUITE[task].gpu for task in given.tasks)
    assert (given.seeds, given.seconds) == (2, 300.0)


def test_every_brax_task_has_settings_for_braxs_ppo():
    names = {t.env.removeprefix("brax/") for t in SUITE.values() if t.env.startswith("brax/")}
    assert names <= set(PUBLISHED)


def test_seeds_that_end_at_once_are_all_kept(tmp_path, monkeypatch, capsys):
    def ended_at_once(command, **_):
        Path(command[-1]).write_text(json.dumps(run(8.0, [10.0, 20.0])))
        return subprocess.CompletedProcess(command, 0, "", "")

    def read_slowly(path, load=learning_curves.load):
        found = load(path)
        time.sleep(0.05)
        return found

    monkeypatch.setattr(learning_curves.subprocess, "run", ended_at_once)
    monkeypatch.setattr(learning_curves, "load", read_slowly)
    arguments = argparse.Namespace(
        gpu=False, tasks=["hopper"], arms=["trpo"], seeds=6, first_seed=0, seconds=1.0,
        minutes=1.0, workers=3, share=1.0, programs=None, together=False, data=tmp_path,
    )
    assert learning_curves.run(arguments) == 0
    kept = json.loads((tmp_path / "hopper--trpo.json").read_text())["runs"]
    assert sorted(kept) == [str(seed) for seed in range(6)]
    assert capsys.readouterr().out.count("hopper trpo seed") == 6
