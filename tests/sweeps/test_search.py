"""Settings searched: trials are members of one program, and the best is put beside the defaults."""

import json

import numpy as np
import pytest

import jtrust
from jtrust.cli import main
from jtrust.sweeps import trials
from jtrust.sweeps.search import resume_search, search

pytestmark = pytest.mark.slow

OPTIONS = dict(
    trials=5, seeds=2, confirm=3, total_steps=16 * 32, num_envs=4, unroll_length=8, devices=1,
    ranges={"max_kl": (0.0003, 0.3, True), "discount": (0.5, 0.999, False)}, metric="policy/kl",
)


def environment():
    return jtrust.make_env("brax/fast", episode_length=20)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("searches") / "search"
    return run_dir, search(environment(), jtrust.TRPO(), run_dir=run_dir, prune=False, **OPTIONS)


def last_kl(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 16
    return np.mean([row["policy/kl"] for row in rows[-2:]])


@pytest.mark.nightly
def test_the_best_is_that_of_the_highest_mean_over_seeds(found):
    run_dir, result = found
    values = [t["value"] for t in result.trials]
    assert values == sorted(values, reverse=True)
    means = [
        np.mean([last_kl(run_dir / f"trial={n},seed={seed}") for seed in (0, 1)])
        for n in range(5)
    ]
    by_number = {t["trial"]: t for t in result.trials}
    assert [by_number[n]["value"] for n in range(5)] == pytest.approx(means)
    assert result.best == by_number[int(np.argmax(means))]["settings"]
    assert by_number[0]["settings"] == {"max_kl": 0.01, "discount": 0.995}  # the defaults
    assert len({tuple(t["settings"].values()) for t in result.trials}) == 5
    for t in result.trials:
        config = json.loads((run_dir / f"trial={t['trial']},seed=1" / "config.json").read_text())
        told = config["hyperparameters"]
        assert told["max_kl"] == t["settings"]["max_kl"]
        assert told["discount"] == t["settings"]["discount"]


def test_the_best_meets_the_defaults_with_fresh_seeds(found):
    run_dir, result = found
    best, defaults = result.comparison.settings
    fresh = list(range(trials.FRESH_SEEDS, trials.FRESH_SEEDS + 3))
    assert best.seeds == defaults.seeds == fresh
    assert best.values == pytest.approx([last_kl(run_dir / f"best,seed={s}") for s in fresh])
    middle, low, high = result.difference
    assert middle == pytest.approx(best.iqm - defaults.iqm) and low <= middle <= high
    assert result.beyond_noise == (low > 0)
    text = result.as_text()
    assert ("beyond the noise of seeds" in text) and ("not beyond" in text) == (low <= 0)
    told = text.splitlines()[-1].split()
    assert told[:3] == ["jtrust", "train", "brax/fast"]
    assert float(told[told.index("--max-kl") + 1]) == pytest.approx(
        result.best["max_kl"], rel=1e-3
    )
    assert told[told.index("--num-envs") + 1] == "4"
    assert told[told.index("--episode-length") + 1] == "20" and told[-2:] == ["--steps", "512"]
    assert json.loads(json.dumps(result.as_json()))["best"] == result.best


class Killed(Exception):
    """Stands for a process that ends in the middle."""


@pytest.mark.nightly
def test_a_search_that_was_cut_off_goes_on(found, tmp_path):
    from jtrust.sweeps.progress import SilentSweep

    class Cuts(SilentSweep):
        def update(self, name, row, total):
            if name == "trial=1,seed=1" and row["iteration"] == 9:
                raise Killed

    run_dir = tmp_path / "cut"
    with pytest.raises(Killed):
        search(
            environment(), jtrust.TRPO(), run_dir=run_dir, prune=False,
            make_progress=lambda *_: Cuts(), **OPTIONS,
        )
    result = resume_search(run_dir, devices=1)
    ours = {t["trial"]: t for t in result.trials}
    theirs = {t["trial"]: t for t in found[1].trials}
    assert set(ours) == set(theirs)
    for number in (0, 1):  # those that were under way
        assert ours[number] == theirs[number]
    assert result.comparison is not None
    again = resume_search(run_dir, devices=1)  # nothing is left to do
    assert again.trials == result.trials and again.difference == result.difference


@pytest.mark.nightly
def test_settings_that_fall_behind_end_early(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "_FULL_RUNS", 1)
    run_dir = tmp_path / "pruned"
    result = search(
        environment(), jtrust.TRPO(), run_dir=run_dir, at_once=2, **OPTIONS | {"trials": 8}
    )
    states = {t["trial"]: t["state"] for t in result.trials}
    assert result.trials[0]["value"] is not None and result.trials[-1]["value"] is None
    assert "pruned" in states.values() and states[0] == "complete"
    for number, state in states.items():
        for seed in (0, 1):
            rows = (run_dir / f"trial={number},seed={seed}/metrics.jsonl").read_text().splitlines()
            assert (len(rows) < 16) == (state == "pruned")
    record = json.loads((run_dir / "sweep.json").read_text())
    assert set(record["ended"].values()) == {trials.BEHIND}


@pytest.mark.parametrize("arguments, said", [
    ([], "needs ranges, such as"),
    (["--max-kl", "0.01", "0.02"], "in a search must be a range"),
    (["--cg-iterations", "2:8"], "shapes the program"),
    (["--initial-std", "0.5:1"], "shapes the program"),
    (["--max-kl=-1:1"], "must be a finite number above 0"),
    (["--clip", "0.1:0.3"], "Unrecognized options"),
    (["--algorithm", "trpo", "ppo", "--max-kl", "0.1:0.3"], "a search is of one algorithm"),
    (["--max-kl", "0.1:0.3", "--search", "0"], "--search 0"),
])
def test_what_will_not_do_is_one_line(arguments, said, capsys, tmp_path):
    run_dir = tmp_path / "none"
    search_of = [] if "--search" in arguments else ["--search", "3"]
    command = ["sweep", "brax/fast", *search_of, "--run-dir", str(run_dir), *arguments]
    assert main(command) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if "jtrust: warning:" not in x]
    assert len(lines) == 1 and said in lines[0]
    assert not run_dir.exists()
