"""`jtrust watch`: what it serves while runs come, grow, are cut back and go."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

import jtrust
from jtrust.reporting.sources import Sources
from jtrust.reporting.watch import Live, Server
from tests.reporting.made import CONFIG, row, write_run

module = sys.modules["jtrust.reporting.watch"]  # whose name in the package is the function


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(module, "_SHORTEST_WAIT", 0.0)
    monkeypatch.setattr(module, "_SHARE", 1e9)


@contextlib.contextmanager
def serving(*paths, **more):
    with Server(paths, **more) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def get(server, path="/content.json", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def content_of(server):
    status, body = get(server)
    assert status == 200
    return json.loads(body)


def steps_of(content):
    charts = {chart["id"]: chart for chart in content["charts"]}
    return content["axes"][charts["policy-kl"]["curves"][0]["x"]] if charts else []


def append(run, first, last, **more):
    with (run / "metrics.jsonl").open("a") as file:
        for i in range(first, last + 1):
            file.write(json.dumps(row(i, **more)) + "\n")


def test_what_is_new_comes_and_what_is_not_does_not(run_dir):
    with serving(run_dir) as server:
        status, page = get(server, "/")
        assert status == 200 and b"connect-src 'self'" in page and b"kind}}" not in page
        first = content_of(server)
        again = f"/content.json?version={first['live']['version']}"
        assert get(server, again) == (204, b"")
        append(run_dir, 101, 103)
        status, body = get(server, again)
        assert status == 200 and len(steps_of(json.loads(body))) == 103


def test_a_run_that_has_not_written_yet_and_is_cut_back_and_goes(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with serving(run) as server:
        first = content_of(server)
        assert steps_of(first) == [] and "Nothing to judge" in first["fragments"]["findings"]
        (run / "config.json").write_text(json.dumps(CONFIG))
        assert content_of(server)["title"] == "brax/ant · trpo · 1 run"
        append(run, 1, 9)
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"step": 40960, "ite')
        assert len(steps_of(content_of(server))) == 9
        with (run / "metrics.jsonl").open("a") as file:
            file.write('ration": 10}\n')
        content_of(server)
        write_run(run, rows=4)  # resumed from an earlier checkpoint
        assert len(steps_of(content_of(server))) == 4
        shutil.rmtree(run)
        gone = content_of(server)
        assert len(steps_of(gone)) == 4 and "the directory is gone" in gone["fragments"]["notes"]
        write_run(run, rows=6)
        back = content_of(server)
        assert len(steps_of(back)) == 6 and back["fragments"]["notes"] == ""


def test_members_of_a_sweep_come_one_by_one(tmp_path):
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    members = [{"name": f"m{i}", "settings": {"max_kl": i}} for i in range(2)]
    with serving(sweep) as server:
        assert content_of(server)["charts"] == []
        (sweep / "sweep.json").write_text(json.dumps({"members": members}))
        write_run(sweep / "m0")
        assert content_of(server)["settings"] == ["max_kl 0", "max_kl 1"]
        write_run(sweep / "m1")
        shutil.rmtree(sweep / "m0")
        content = content_of(server)
        assert len(content["charts"][0]["curves"]) == 2
        shutil.rmtree(sweep)
        assert len(content_of(server)["charts"][0]["curves"]) == 2


def test_a_run_that_compiles_is_waited_for(tmp_path):
    (tmp_path / ".run.starting-123").mkdir()
    with serving(tmp_path / "run") as server:
        assert content_of(server)["charts"] == []
        (tmp_path / ".run.starting-123").rename(tmp_path / "run")
        write_run(tmp_path / "run", rows=3)
        assert len(steps_of(content_of(server))) == 3


def test_only_this_machine_may_ask_and_only_for_the_page(run_dir):
    with serving(run_dir) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert get(server, "/../../etc/passwd")[0] == get(server, "/metrics.jsonl")[0] == 404
        assert get(server, host="evil.example")[0] == get(server, "/", host="a:1")[0] == 403
        assert get(server, host=f"localhost:{server.port}")[0] == 200


def test_a_browser_that_goes_away_is_nobodys_failure(run_dir, capfd):
    with serving(run_dir) as server:
        for _ in range(3):
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            connection.request("GET", "/")
            connection.close()
        assert get(server)[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_nothing_is_read_or_made_more_often_than_is_cheap(run_dir, monkeypatch):
    monkeypatch.setattr(module, "_SHORTEST_WAIT", 1000.0)
    live = Live(Sources([run_dir]))
    first = live.content()
    append(run_dir, 101, 102)
    assert live.content() is first and first["live"]["milliseconds"] == 1_000_000
    monkeypatch.setattr(module, "_SHORTEST_WAIT", 0.0)
    monkeypatch.setattr(module, "_SHARE", 1e-6)
    live = Live(Sources([run_dir]))
    assert live.content()["live"]["milliseconds"] > 1000  # a million times what it took


@pytest.mark.slow
def test_a_run_that_trains_in_another_process_is_followed(tmp_path):
    run = tmp_path / "run"
    training = subprocess.Popen([sys.executable, "-c", (
        "import jtrust\nfrom tests.conftest import Point\n"
        f"jtrust.train(Point(), total_steps=64 * 30, run_dir={str(run)!r}, num_envs=8, "
        "unroll_length=8, devices=1)"
    )])
    seen = set()
    try:
        while not (run / "metrics.jsonl").exists():
            assert training.poll() is None
        with serving(run) as server:
            while training.poll() is None:
                seen.add(len(steps_of(content_of(server))))
                time.sleep(0.05)
            assert steps_of(content_of(server)) == [64 * i for i in range(1, 31)]
            assert training.returncode == 0 and len(seen) >= 1
    finally:
        training.kill()
        training.wait()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_ctrl_c_ends_it_and_leaves_nothing(run_dir, number, status):
    before = sorted(os.listdir(run_dir))
    process = subprocess.Popen(
        [sys.executable, "-m", "jtrust", "watch", str(run_dir)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )
    said = process.stdout.readline()
    assert said.startswith("watching at http://127.0.0.1:")
    port = int(said.split(":")[2].partition("/")[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status and (out, err) == ("", "")
    assert sorted(os.listdir(run_dir)) == before


def test_watch_is_there_from_python():
    with pytest.raises(jtrust.BadArgument, match="port"):
        Server(["."], port=-3)
