"""Presets: settings with the figures behind them, and what the command line makes of them."""

import json
import re
import shlex
from pathlib import Path

import pytest

import jtrust
from jtrust import cli, presets
from jtrust.algorithms import ALGORITHMS
from jtrust.cli.parsing import parse_training
from jtrust.cli.presets import with_preset
from jtrust.cli.train import TrainOptions

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", presets.names())
def test_each_has_its_evidence(name):
    """The page shows the command, the preset's settings and both means; intervals lie apart."""
    preset = presets.load(name)
    found = preset.evidence
    page = (ROOT / found.page).read_text()
    assert found.command in page
    for which in (found.preset, found.defaults):
        assert f"{which['mean']:g}" in page
        assert f"{which['low']:g} to {which['high']:g}" in page
        assert which["low"] <= which["mean"] <= which["high"]
    assert found.preset["low"] > found.defaults["high"], "no more than the noise of seeds"
    assert found.seeds >= 5
    for value in preset.settings.values():
        assert str(value) in page, "not the settings that were run"
    algorithm = preset.make_algorithm()
    assert type(algorithm) is ALGORITHMS[preset.algorithm]
    default = type(algorithm)()
    assert any(getattr(algorithm, k) != getattr(default, k) for k in preset.settings)


def _parsed(line):
    found = parse_training(TrainOptions, "train", with_preset(shlex.split(line), TrainOptions))
    return found.options, found.hyperparameters


def test_given_flags_win():
    preset = presets.load("brax/reacher")
    options, algorithm = _parsed("brax/reacher --preset")
    assert options.of_environment() == {"backend": "spring"}
    assert algorithm == preset.make_algorithm()
    options, algorithm = _parsed("reacher --preset --backend positional --max_kl=0.5 --steps 100")
    assert (options.of_environment(), algorithm.max_kl) == ({"backend": "positional"}, 0.5)
    options, _ = _parsed("reacher --preset --env-option backend=mjx")
    assert options.of_environment() == {"backend": "mjx"}
    assert algorithm.discount == preset.settings["discount"]
    # The environment behind options, one of which has the name of an environment.
    options, algorithm = _parsed("--run-dir ant --keep-best --preset brax/reacher")
    assert options.env == "brax/reacher"
    assert algorithm.discount == preset.settings["discount"]


def test_without_the_flag_nothing_changes():
    options, algorithm = _parsed("brax/reacher")
    assert options.backend is None
    assert algorithm == jtrust.TRPO()


@pytest.mark.parametrize("line, said", [
    ("train brax/ant --preset", "--preset brax/ant: there is none for it; there are for "),
    ("train playground/Go1JoystickFlatTerrain --preset", "brax/reacher"),
    ("train brax/reacher --preset --algorithm ppo", "--algorithm ppo: the preset of brax/reacher"),
    ("train --preset", "ENV"),
])
def test_what_will_not_do_is_one_line(line, said, capsys):
    assert cli.main(line.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error


@pytest.mark.slow
@pytest.mark.nightly
def test_a_run_records_it(tmp_path):
    """config.json names the preset and holds its settings; a resumed run keeps both."""
    run = tmp_path / "run"
    line = f"train reacher --preset --backend spring --num-envs 8 --steps 512 --run-dir {run}"
    assert cli.main(line.split()) == 0
    config = json.loads((run / "config.json").read_text())
    settings = presets.load("reacher").settings
    assert config["preset"] == "brax/reacher"
    assert {k: config["hyperparameters"][k] for k in settings} == pytest.approx(settings)
    assert cli.main(["resume", str(run), "--steps", "1024"]) == 0
    assert json.loads((run / "config.json").read_text())["preset"] == "brax/reacher"


def test_python_takes_the_same():
    preset = presets.load("reacher")
    assert preset.make_algorithm(max_kl=0.5).max_kl == 0.5
    assert preset.make_env().options["backend"] == "spring"
    with pytest.raises(jtrust.BadArgument, match=r"brax/hopperr.*there are for brax/"):
        presets.load("hopperr")
    with pytest.raises(jtrust.BadArgument, match="preset"):
        jtrust.train("brax/reacher", preset="nothing")


def test_files_are_read_whole():
    """Every file is a preset of its own environment, named after it."""
    for path in (ROOT / "jtrust/presets").glob("*.json"):
        env = json.loads(path.read_text())["env"]
        assert path.stem == re.sub(r"[^\w]+", "-", env)
        assert env in presets.names()
