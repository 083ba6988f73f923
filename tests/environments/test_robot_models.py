"""`--download`: robots' models fetched with git, here from a repository of this machine."""

import subprocess

import pytest
from mujoco_playground._src import mjx_env

import jtrust
from jtrust import cli
from jtrust.environments import playground_suite, robot_models

NAME = "playground/Go1JoystickFlatTerrain"


def _git(where, *arguments):
    told = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    return subprocess.run(
        ["git", "-C", str(where), *told, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def menagerie(tmp_path, monkeypatch):
    """(repository, place, commit): where models are fetched from, and to; not its newest commit."""
    repository, place = tmp_path / "repository", tmp_path / "deps" / "mujoco_menagerie"
    repository.mkdir()
    _git(repository, "init", "--quiet")
    for text in ("meant", "newer"):
        (repository / "robot.xml").write_text(text)
        _git(repository, "add", ".")
        _git(repository, "commit", "--quiet", "-m", text)
    commit = _git(repository, "rev-parse", "HEAD~1")
    monkeypatch.setattr(mjx_env, "MENAGERIE_PATH", place)
    monkeypatch.setattr(mjx_env, "MENAGERIE_COMMIT_SHA", commit)
    monkeypatch.setenv(robot_models.VARIABLE, f"file://{repository}")
    return repository, place, commit


def test_the_one_commit_is_fetched_once(menagerie, monkeypatch):
    _, place, commit = menagerie
    assert playground_suite.remark("Go1JoystickFlatTerrain")
    place.mkdir(parents=True)  # empty, as somebody may have left it
    robot_models.fetch()
    assert (place / "robot.xml").read_text() == "meant"
    assert _git(place, "rev-parse", "HEAD") == commit
    assert [x.name for x in place.parent.iterdir()] == [place.name]
    assert not playground_suite.remark("Go1JoystickFlatTerrain")
    monkeypatch.setenv(robot_models.VARIABLE, "/nowhere")
    robot_models.fetch()  # nothing is missing, so nothing is asked


def test_nothing_is_fetched_without_the_word(menagerie, capsys):
    _, place, _ = menagerie
    assert cli.main(["train", NAME]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--download" in error
    assert not place.exists()


def test_the_command_line_fetches(menagerie, capsys):
    """The models that came are none that Playground can read, which is told in a line."""
    _, place, _ = menagerie
    assert cli.main(["train", NAME, "--download"]) == 2
    error = capsys.readouterr().err
    assert (place / "robot.xml").exists()
    assert "Playground could not make it" in error and "Traceback" not in error


@pytest.mark.parametrize("address, said", [
    ("file:///no/such/repository", "git fetch: fatal:"),
    ("http://127.0.0.1:9/none", "git fetch: fatal:"),
])
def test_what_cannot_be_had_is_one_line(menagerie, monkeypatch, capsys, address, said):
    _, place, _ = menagerie
    monkeypatch.setenv(robot_models.VARIABLE, address)
    assert cli.main(["train", NAME, "--download"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error and address in error
    assert list(place.parent.iterdir()) == [], "something was left behind"


def test_a_commit_that_is_not_there(menagerie, monkeypatch):
    monkeypatch.setattr(mjx_env, "MENAGERIE_COMMIT_SHA", "0" * 40)
    with pytest.raises(jtrust.BadArgument, match="git fetch"):
        robot_models.fetch()


def test_without_git(menagerie, monkeypatch):
    monkeypatch.setattr(robot_models.shutil, "which", lambda name: None)
    with pytest.raises(jtrust.BadArgument, match="needs git"):
        robot_models.fetch()


def test_what_needs_no_models():
    """Nothing to fetch for a control task; asking it of another suite is a mistake."""
    made = jtrust.make_env("playground/CartpoleBalance", download=True)
    assert "download" not in made.options
    with pytest.raises(jtrust.BadArgument, match="brax/ant needs none"):
        jtrust.make_env("brax/ant", download=True)
