"""What `jtrust profile` prints and writes."""

import dataclasses
import gzip
import json
from pathlib import Path

import pytest

import jtrust
from jtrust.cli import main
from jtrust.profiling import profile, to_text

pytestmark = pytest.mark.slow

TINY = dict(num_envs=16, unroll_length=8, devices=1, iterations=1, repeats=2)
PARTS = {
    "trpo": ["fresh starts", "physics", "policy inference", "advantages", "normalization",
             "update: gradient", "update: Fisher-vector products", "update: line search",
             "value fit", "everything else"],
    "ppo": ["fresh starts", "physics", "policy inference", "advantages", "normalization",
            "update: gradient", "update: line search", "value fit", "everything else"],
}


@pytest.fixture(scope="module", params=[
    "trpo", pytest.param("ppo", marks=pytest.mark.nightly),
])
def found(request, point, tmp_path_factory):
    algorithm = {"trpo": jtrust.TRPO(), "ppo": jtrust.PPO()}[request.param]
    return profile(point, algorithm, trace_dir=tmp_path_factory.mktemp("trace"), **TINY)


def test_it_is_kept_beside_its_trace(found):
    kept = json.loads((Path(found.trace_dir) / "profile.json").read_text())
    assert kept == dataclasses.asdict(found)


def test_the_parts_add_up_to_the_whole(found):
    names = [phase.name for phase in found.phases]
    assert [name for name in names if "what is left" not in name] == PARTS[found.algorithm]
    assert sum(phase.share for phase in found.phases) == pytest.approx(1.0)
    total = sum(phase.seconds for phase in found.phases)
    assert total == pytest.approx(found.iteration_seconds)
    for phase in found.phases:
        assert phase.share == pytest.approx(phase.seconds / found.iteration_seconds)
        assert phase.measured


def test_rates_and_memory_have_their_units(found):
    steps = TINY["num_envs"] * TINY["unroll_length"]
    assert found.flops_per_second == pytest.approx(found.flops * found.steps_per_second / steps)
    # [T, N] of a reward, a truncation value, two flags, and observations and actions beside them.
    assert found.memory["rollout"] >= steps * (4 + 4 + 2)
    assert found.memory["process at its highest, profiling included"] > 50e6


def test_the_trace_names_the_parts_and_the_scopes(found, tmp_path):
    with gzip.open(found.perfetto_file) as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    for phase in found.phases:
        if phase.name in ("everything else", "rollout: what is left"):
            continue  # what is left of others, and no part of its own
        assert phase.name in names
    # The compiled programs lie in the trace with the scopes of the code that they came from.
    from pathlib import Path

    (scopes,) = Path(found.trace_dir).glob("plugins/profile/*/*.xplane.pb")
    data = scopes.read_bytes()
    for scope in (b"physics", b"policy_inference", b"advantages", b"value_fit", b"line_search"):
        assert scope in data


def test_the_text_says_how_to_open_the_trace(found):
    text = to_text(found)
    assert found.perfetto_file in text and "ui.perfetto.dev" in text
    assert "100.0%  timed alone" in text


@pytest.mark.nightly
def test_the_command_prints_one_json_object(tmp_path, capfd):
    arguments = ["profile", "fast", "--num-envs", "16", "--unroll-length", "8", "--devices", "1",
                 "--iterations", "1", "--repeats", "1", "--trace-dir", str(tmp_path / "t")]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["env"] == "brax/fast" and found["steps_per_second"] > 0


@pytest.mark.parametrize("option, value", [
    ("--repeats", "0"), ("--iterations", "-1"), ("--num-envs", "0"), ("--algorithm", "sac"),
])
def test_bad_options_are_answered_in_one_line(tmp_path, capfd, option, value):
    assert main(["profile", "fast", option, value, "--trace-dir", str(tmp_path)]) == 2
    message = capfd.readouterr().err
    assert message.count("\n") == 1 and option in message and value in message


def test_a_place_that_cannot_be_written_is_named(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    place = str(tmp_path / "file" / "below")
    assert main(["profile", "fast", "--trace-dir", place]) == 2
    assert place in capfd.readouterr().err
