"""`jtrust plan` and `jtrust.plan`: what they say, where they work, and what they leave alone."""

import dataclasses
import json
import subprocess
import sys
from importlib import resources

import jax
import pytest

import jtrust
from jtrust.checks import BadArgument
from jtrust.cli import main
from jtrust.planning import processes, work
from jtrust.planning.plan import Request

pytestmark = pytest.mark.slow

KEYS = {
    "target", "devices", "fits", "memory_bytes", "device_memory_bytes", "launches",
    "launches_per_step", "collectives", "compile_seconds",
}
TINY = ["--num-envs", "32", "--unroll-length", "4"]


def request(env, target, **changes):
    fields = dict(
        env=env, env_options={}, algorithm=jtrust.TRPO(), target=target, devices=None,
        largest=False,
    )
    own = {name: changes.pop(name) for name in fields.keys() & changes.keys()}
    options = dict(num_envs=32, unroll_length=4) | changes
    return Request(**fields | own, options=options)


@pytest.fixture(scope="module")
def small_gpu(tmp_path_factory):
    """An H100 with 400 kB of memory, of which JAX takes 300."""
    text = (resources.files("jtrust.planning") / "gpus" / "h100.txtpb").read_text()
    path = tmp_path_factory.mktemp("gpu") / "small.txtpb"
    path.write_text(text.replace("device_memory_size: 84942979072", "device_memory_size: 400000"))
    return str(path)


def test_json_is_one_object_and_a_user_learns_what_fits(small_gpu, capfd):
    arguments = ["plan", "brax/fast", "--target", small_gpu, "--episode-length", "20", "--json"]
    assert main([*arguments, *TINY, "--max-kl", "0.02", "--policy-layers", "16"]) == 0
    captured = capfd.readouterr()
    assert captured.out.count("\n") == 1
    found = json.loads(captured.out)
    assert set(found) >= KEYS and found["note"] == "compiled, not run"
    assert found["fits"] and found["device_memory_bytes"] == 400_000
    assert 10_000 < found["memory_bytes"] < 300_000
    assert found["launches"] == sum(found["launches_by_phase"].values()) > 300
    assert found["collectives"] == {} and found["compile_seconds"] > 0
    # Found by compiling: two neighbours, one that fits and one that does not.
    assert found["smallest_too_large"] == 2 * found["largest_num_envs"] > 32
    assert 2 <= found["programs_compiled"] <= 5
    # On the way there it says what it does, and nothing else.
    lines = captured.err.splitlines()
    assert len(lines) == found["programs_compiled"]
    assert all(line.startswith("compiling ") for line in lines)


@pytest.mark.nightly
def test_text_says_beside_every_figure_that_nothing_ran_and_two_do_not_meet():
    command = [sys.executable, "-m", "jtrust", "plan", "brax/fast", "--target", "v5e:2x2",
               "--devices", "2", "--no-largest", *TINY]
    # libtpu locks itself for one process, unless told otherwise.
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        text, said = process.communicate()
        assert process.returncode == 0, said
        assert said == "compiling 32 environments for v5e:2x2 ...\n"
        assert "TPU v5 lite x 2" in text and "launches" not in text
        for name in ("fits", "collectives"):
            (line,) = [line for line in text.splitlines() if line.startswith(name)]
            assert line.endswith("(compiled, not run)")


def test_a_program_that_xla_refuses_is_an_answer(point):
    # 50 GB of rollout, on four chips of 16.
    found = work.carry_out(
        request(point, "v5e:2x2", num_envs=2**16, unroll_length=2**15), lambda line: None
    )
    assert not found.fits and "memory" in found.refused.lower()
    assert found.memory_bytes is None or found.memory_bytes > found.usable_memory_bytes
    assert found.collectives is None and found.launches is None


def test_an_environment_by_name_is_planned_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(processes, "_from_here", None)
    env = jtrust.make_env("brax/fast", episode_length=20)
    found = jtrust.plan(env, jtrust.PPO(), target="cpu:2", num_envs=32, unroll_length=4,
                        largest=False)
    assert (found.env, found.algorithm, found.devices) == ("brax/fast", "ppo", 2)
    assert found.launches is None and set(found.collectives) == {"all-reduce"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.fits = False


def test_an_object_that_cannot_be_handed_over_is_planned_here(point):
    point.anything = lambda: None  # which pickle does not take
    try:
        found = jtrust.plan(point, target="cpu", num_envs=32, unroll_length=4, largest=False)
    finally:
        del point.anything
    assert found.env == "Point" and found.fits
    assert len(jax.devices()) == found.devices


def test_environments_are_as_many_as_a_run_would_take_where_none_are_given(point):
    said = []
    found = jtrust.plan(point, target="cpu", unroll_length=4, largest=False, say=said.append)
    assert found.num_envs == 64 and "64 environments" in said[-1]


def test_from_python_jax_is_not_started():
    # A class that only this script has: nothing that another process could import.
    script = """
import jax, jtrust
from tests.conftest import Point
from jax._src import xla_bridge
class Mine(Point): pass
found = jtrust.plan(Mine(), target="cpu:3", num_envs=36, unroll_length=4, largest=False)
print(found.devices, found.env, xla_bridge.backends_are_initialized(), jax.config.jax_platforms)
"""
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
    )
    assert process.stdout.split() == ["3", "Mine", "False", "cpu"]
    assert process.stderr == ""


def test_importing_jtrust_imports_no_planning():
    script = "import sys, jtrust; print([m for m in sys.modules if 'jtrust.planning' in m])"
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
    )
    assert process.stdout.strip() == "[]"


@pytest.mark.parametrize(("arguments", "words"), [
    (["--target", "h10"], "--target h10: unknown target; did you mean h100"),
    (["--target", "h100:4", "--num-envs", "10"], "--num-envs 10: must be a multiple"),
    (["--target", "h100", "--devices", "4"], "--devices 4: h100 has 1; name h100:4"),
    (["--target", "h100", "--env-option", "nothing=1"], "--env-option nothing: unknown option"),
    (["--target", "h100", "--max-kl", "nan"], "--max-kl nan: "),
])
def test_mistakes_are_told_in_one_line(arguments, words, capfd):
    assert main(["plan", "playground/CartpoleBalance", *arguments]) == 2
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith(f"jtrust: {words}")


@pytest.mark.parametrize("target", ["v5e:2x2", "h100"])
def test_warps_physics_has_no_program_to_look_at(target, monkeypatch, point):
    environment = jtrust.describe(point, "playground/CartpoleBalance", options={"backend": "warp"})
    with pytest.raises(BadArgument, match="backend='warp'"):
        work.carry_out(request(environment, target), lambda line: None)
