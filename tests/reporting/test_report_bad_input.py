"""`jtrust report` and `jtrust watch` given what will not do: one line, and nothing half-written."""

import json
import os
import socket
import sys

import pytest

import jtrust
from jtrust.cli import main
from tests.reporting.made import write_run


def refused(arguments, capfd):
    """The one line with which a command answers."""
    assert main(arguments) == 2
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1, captured
    return captured.err


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty directory that stays so."""
    path = tmp_path / "here"
    path.mkdir()
    monkeypatch.chdir(path)
    yield path
    assert os.listdir(path) == []


def plain_file(path):
    path.write_text("x")


def no_rows(path):
    path.mkdir()


def only_half_a_line(path):
    path.mkdir()
    (path / "metrics.jsonl").write_text('{"step": 1, "iter')


def link(path):
    target = write_run(path.with_name("target"))
    path.mkdir()
    (path / "metrics.jsonl").symlink_to(target / "metrics.jsonl")


def pipe(path):
    path.mkdir()
    os.mkfifo(path / "metrics.jsonl")


def gigantic(path):
    path.mkdir()
    (path / "metrics.jsonl").write_bytes(b'{"step": 1, "x": "' + b"y" * 3_000_000 + b'"}\n')


@pytest.mark.parametrize(("make", "words"), [
    (lambda path: None, "does not exist"), (plain_file, "is a file"), (no_rows, "no rows"),
    (only_half_a_line, "no rows"), (link, "symbolic link"), (pipe, "no plain file"),
    (gigantic, "metrics.jsonl that are no rows, and are left out: 1"),
])
def test_a_directory_without_metrics_is_refused(here, tmp_path, capfd, make, words):
    make(tmp_path / "run")
    said = refused(["report", str(tmp_path / "run")], capfd)
    assert words in said and "RUN_DIR" in said


def test_one_of_several_without_metrics_is_named(here, tmp_path, capfd):
    write_run(tmp_path / "good")
    (tmp_path / "empty").mkdir()
    said = refused(["report", str(tmp_path / "good"), str(tmp_path / "empty")], capfd)
    assert str(tmp_path / "empty") in said


def test_no_directory_at_all_is_refused(here, capfd):
    assert "RUN_DIR" in refused(["report"], capfd)
    with pytest.raises(jtrust.BadArgument, match="RUN_DIR"):
        jtrust.report([])


@pytest.mark.parametrize(("output", "words"), [
    ("{}", "is a directory"), ("{}/none/r.html", "make it first"), ("{}/r.txt", "end in .html"),
    ("", "empty"), ("gs://bucket/r.html", "file system"), ("/proc/r.html", "cannot be written"),
    ("{}/" + "x" * 300 + ".html", "path"), ("{}/pipe.html", "no plain file"),
])
def test_an_output_that_cannot_be_written_is_told(tmp_path, capfd, output, words):
    run = write_run(tmp_path / "run")
    place = tmp_path / "place"
    place.mkdir()
    os.mkfifo(place / "pipe.html")
    said = refused(["report", str(run), "--output", output.format(place)], capfd)
    assert words in said and os.listdir(place) == ["pipe.html"]


def test_a_disk_that_is_full_leaves_the_page_that_was_there(tmp_path, capfd, monkeypatch):
    run, output = write_run(tmp_path / "run"), tmp_path / "r.html"
    output.write_text("before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert "No space left" in refused(["report", str(run), "--output", str(output)], capfd)
    assert output.read_text() == "before" and sorted(os.listdir(tmp_path)) == ["r.html", "run"]


@pytest.mark.parametrize("command", ["report", "watch"])
def test_a_missing_extra_is_told(here, tmp_path, capfd, monkeypatch, command):
    run = write_run(tmp_path / "run")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "vl_convert", raising=False)
    assert "pip install 'jtrust[report]'" in refused([command, str(run)], capfd)


def test_a_line_that_is_cut_is_left_and_a_damaged_configuration_is_said(tmp_path, capfd):
    run = write_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write("rubbish\n" + '{"step": 1, "it')
    (run / "config.json").write_bytes(b"\xff{")
    output = tmp_path / "r.html"
    assert main(["report", str(run), "--output", str(output)]) == 0
    text = output.read_text()
    assert "metrics.jsonl that are no rows, and are left out: 1" in text
    assert "config.json cannot be read" in text


@pytest.mark.parametrize("config", [
    {}, {"env": 3, "algorithm": [], "hyperparameters": [], "network": 1, "action": "x", "seed": {}},
    {"hyperparameters": {"max_kl": 10**400}, "total_steps": 10**400, "seed": 10**400},
    {"hyperparameters": {"max_kl": "x" * 10**5}, "env": "e" * 10**5, "total_steps": -1},
    {"action": {"kind": "box", "size": 10**400}, "network": {"min_std": 10**400}},
    {"env": "\udc80", "algorithm": "\x00"},
])
def test_a_configuration_of_anything_is_shown(tmp_path, config):
    run = write_run(tmp_path / "run")
    (run / "config.json").write_text(json.dumps(config))
    text = jtrust.report(run, tmp_path / "r.html").read_text()
    assert len(text) < 1_500_000 and "Trust region" in text


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_a_port_that_is_none_is_told(run_dir, capfd, port):
    assert "--port" in refused(["watch", str(run_dir), "--port", port], capfd)


def test_a_port_that_is_taken_is_told(run_dir, capfd):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = refused(["watch", str(run_dir), "--port", port], capfd)
    assert "--port" in said and port in said and "in use" in said


def test_watching_nothing_is_told(tmp_path, capfd):
    assert "does not exist" in refused(["watch", str(tmp_path / "none")], capfd)
