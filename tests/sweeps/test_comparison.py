"""Runs compared by setting; damaged and foreign sweeps."""

import json
import shutil

import numpy as np
import pytest
from scipy import stats

import jtrust
from jtrust.cli import main
from jtrust.sweeps.comparison import compare, compare_rows, last_value

SMALL = dict(num_envs=8, unroll_length=4)


def metrics(*values):
    return {
        "episode/return": np.asarray(values, float), "step": 32 * np.arange(1, len(values) + 1),
    }


def test_a_run_counts_by_the_mean_of_its_last_tenth():
    returns = np.arange(40.0)
    returns[38] = np.nan
    found = {"episode/return": returns}
    assert last_value(found, "episode/return") == np.mean([36, 37, 39])
    assert last_value({"x": np.asarray([1.0, np.nan])}, "x") == 1.0  # its newest
    assert last_value({"x": np.asarray([np.nan])}, "x") is None
    assert last_value({}, "x") is None


def test_settings_are_summed_up_over_seeds():
    random = np.random.default_rng(0)
    values = {kl: random.normal(100 * kl, 1.0, 8) for kl in (1.0, 2.0)}
    found = compare_rows([
        (f"max_kl={kl},seed={seed}", seed, {"max_kl": kl}, metrics(0.0, value), "")
        for kl, of_kl in values.items() for seed, value in enumerate(of_kl)
    ] + [("bad", 8, {"max_kl": 2.0}, {}, "gave NaN")])
    assert found.metric == "episode/return"
    for one, of_kl in zip(found.settings, values.values(), strict=True):
        assert one.seeds == list(range(8)) and one.steps in (0, 64)
        assert one.iqm == pytest.approx(stats.trim_mean(of_kl, 0.25))
        draws = np.random.default_rng(1).choice(of_kl, (4000, 8))
        low, high = np.percentile(stats.trim_mean(draws, 0.25, axis=1), [2.5, 97.5])
        assert one.low == pytest.approx(low, abs=0.15) and one.high == pytest.approx(high, abs=0.15)
    assert found.settings[1].ended == {"bad": "gave NaN"} and found.settings[1].steps == 0
    assert found.best is found.settings[1]
    text = found.as_text().splitlines()
    assert len({len(line) for line in text[:3]}) == 1 and text[3] == "bad: gave NaN"
    assert json.loads(json.dumps(found.as_json()))["settings"][0]["seeds"] == list(range(8))


@pytest.fixture(scope="module")
def sweep(point, tmp_path_factory):
    path = tmp_path_factory.mktemp("compared") / "sweep"
    jtrust.train_many(
        point, jtrust.TRPO(), seeds=2, max_kl=[0.01, 0.02], total_steps=64, run_dir=path,
        devices=1, **SMALL,
    )
    return path


@pytest.mark.slow
def test_runs_and_sweeps_are_compared_by_what_differs(sweep, point, tmp_path, capsys):
    jtrust.train(
        point, jtrust.TRPO(max_kl=0.02), total_steps=64, seed=7, run_dir=tmp_path / "alone",
        devices=1, **SMALL,
    )
    assert main(["compare", str(sweep), str(tmp_path / "alone"), "--json", "--metric",
                 "policy/kl"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metric"] == "policy/kl"
    assert [(s["settings"], s["seeds"]) for s in found["settings"]] == [
        ({"max_kl": 0.01}, [0, 1]), ({"max_kl": 0.02}, [0, 1, 7]),
    ]
    rows = [json.loads(x) for x in (tmp_path / "alone/metrics.jsonl").read_text().splitlines()]
    assert found["settings"][1]["values"][2] == pytest.approx(rows[-1]["policy/kl"])
    assert main(["compare", str(sweep / "max_kl=0.01,seed=0")]) == 0
    assert "episode/return" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.nightly
def test_algorithms_without_a_setting_do_not_hide_it(point, tmp_path):
    for i, algorithm in enumerate((
        jtrust.PPO(clip=0.1, minibatches=2), jtrust.PPO(clip=0.3, minibatches=2), jtrust.TRPO(),
    )):
        jtrust.train(
            point, algorithm, total_steps=64, run_dir=tmp_path / str(i), devices=1, **SMALL
        )
    found = compare([tmp_path / str(i) for i in range(3)], "policy/kl")
    assert len(found.settings) == 3
    assert [s.settings.get("clip") for s in found.settings] == [0.1, 0.3, None]
    # How far a run went, and how it was looked at, makes no setting; bins of actions do.
    again = dict(devices=1, **SMALL)
    jtrust.train(point, jtrust.TRPO(), total_steps=96, seed=1, run_dir=tmp_path / "3",
                 evaluate_every=1, **again)
    jtrust.train(point, jtrust.TRPO(), total_steps=64, run_dir=tmp_path / "4", action_bins=3,
                 **again)
    found = compare([tmp_path / str(i) for i in (2, 3, 4)], "policy/kl")
    assert [s.seeds for s in found.settings] == [[0, 1], [0]]


@pytest.mark.slow
def test_a_link_in_place_of_a_run_is_not_followed(sweep, point, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(sweep, copy)
    (copy / "max_kl=0.01,seed=1").rename(tmp_path / "elsewhere")
    (copy / "max_kl=0.01,seed=1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(jtrust.BadArgument, match="symbolic link"):
        jtrust.resume_many(copy, 640, env=point)


@pytest.mark.parametrize("change", [
    {"x": 1}, {"ranges": [1]}, {"ranges": {"max_kl": [1]}}, {"trials": "x"}, {"metric": [1]},
    {"at_once": "x"}, {"given": "x"}, {"seeds": [-1]}, {"seeds": ["/../../../ESC"]},
    {"ranges": {"max_kl": [0.9, 0.1, False]}}, {"prune": 1}, {"confirm": -1},
])
def test_a_search_that_nobody_began_is_one_line(tmp_path, change):
    from jtrust.sweeps.search import resume_search

    good = {
        "trials": 2, "ranges": {"max_kl": [0.01, 0.1, True]}, "prune": True, "seeds": [0],
        "metric": "episode/return", "confirm": 2, "given": {}, "seed": 0, "at_once": None,
    }
    record = {
        "format": 1, "jtrust": "0.1.0", "base": {}, "members": [], "groups": [], "ended": {},
        "search": good | change,
    }
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    with pytest.raises(jtrust.BadArgument) as raised:
        resume_search(tmp_path)
    assert "\n" not in str(raised.value)
    assert {p.name for p in tmp_path.iterdir()} <= {"sweep.json", "lock"}


def said(capsys, *arguments):
    assert main([str(a) for a in arguments]) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if "jtrust: warning:" not in x]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.slow
def test_a_sweep_is_no_run_and_is_not_begun_twice(sweep, capsys, tmp_path):
    assert "is a sweep's; give the directory of one of its runs" in said(capsys, "evaluate", sweep)
    assert "holds a sweep; go on with it by" in said(
        capsys, "sweep", "brax/fast", "--run-dir", sweep
    )
    assert "holds a sweep" in said(capsys, "train", "brax/fast", "--run-dir", sweep)
    assert "unknown metric" in said(capsys, "compare", sweep, "--metric", "x")
    assert "does not exist" in said(capsys, "compare", tmp_path / "none")
    assert "goes on as it was begun" in said(capsys, "resume", sweep, "--wandb")
    with pytest.raises(jtrust.BadArgument, match="Point, an object"):
        jtrust.resume_many(sweep)


@pytest.mark.slow
@pytest.mark.parametrize("change", [
    lambda fields: fields.pop("members"),
    lambda fields: fields.update(format=99),
    lambda fields: fields["members"][0].update(name="../outside"),
    lambda fields: fields["members"][0].update(name="/tmp/outside"),
    lambda fields: fields["members"][1].update(name=fields["members"][0]["name"]),
    lambda fields: fields["groups"][0].update(slots=-1),
    lambda fields: fields["groups"][0].update(varied=[10**9]),
    lambda fields: fields["groups"][0]["members"].append("nobody"),
    lambda fields: fields["members"][0].update(changes={"num_envs": -4}),
    lambda fields: fields["members"][0].update(changes={"seed": "x"}),
    lambda fields: fields["members"][0].update(changes=[]),
    lambda fields: fields["base"].clear(),
    lambda fields: fields.update(ended=[]),
    lambda fields: fields.update(ended={"max_kl=0.01,seed=0": {"a": 1}}),
    lambda fields: fields.update(members=[], groups=[]),
    lambda fields: fields["groups"][0].update(varied=[900]),
    lambda fields: fields["groups"][0].update(varied=[]),
    lambda fields: fields["groups"][0].update(members=[]),
    lambda fields: fields["members"][0].update(name="a" * 400),
    lambda fields: fields["members"][0].update(seed=10**30),
    lambda fields: fields["members"][0].update(seed=5),
])
def test_a_damaged_record_is_one_line(sweep, point, tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(sweep, copy)
    fields = json.loads((copy / "sweep.json").read_text())
    change(fields)
    (copy / "sweep.json").write_text(json.dumps(fields))
    before = sorted(p.name for p in copy.rglob("*"))
    with pytest.raises(jtrust.BadArgument) as raised:
        jtrust.resume_many(copy, env=point)
    assert "\n" not in str(raised.value)
    assert sorted(p.name for p in copy.rglob("*") if p.name != "lock") == [
        name for name in before if name != "lock"
    ]
