"""The examples: a policy in C, and one in MuJoCo where there is no JAX."""

import importlib.util
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jtrust

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PRETRAINED = ROOT / "checkpoints" / "pretrained"
# Where a machine has ONNX Runtime's own header that is taken; else the tests' own.
HEADERS = Path("/usr/include/onnxruntime")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """examples/onnx_policy.c, compiled against the library in onnxruntime's wheel."""
    place = tmp_path_factory.mktemp("c")
    wheel = Path(importlib.util.find_spec("onnxruntime").origin).parent / "capi"
    (library,) = wheel.glob("libonnxruntime.so.*")
    (place / "libonnxruntime.so.1").symlink_to(library)
    (place / "libonnxruntime.so").symlink_to(library)
    headers = HEADERS if HEADERS.is_dir() else Path(__file__).parent / "abi"
    subprocess.run(
        [os.environ.get("CC", "cc"), "-std=c99", "-Wall", "-Wextra", "-Werror", "-O2",
         ROOT / "examples" / "onnx_policy.c", f"-I{headers}", f"-L{place}", "-lonnxruntime",
         f"-Wl,-rpath,{place}", "-o", place / "onnx_policy"],
        check=True,
    )
    return place / "onnx_policy"


@pytest.mark.parametrize("name", ["hopper", "CartPole"])
def test_the_program_in_c_acts_as_the_policy(name, program, tmp_path):
    policy = jtrust.load_policy(PRETRAINED / name)
    jtrust.export(PRETRAINED / name, format="onnx", output=tmp_path / "policy.onnx")
    draw = np.random.default_rng(0)
    observations = np.asarray(policy.statistics.mean + policy.statistics.std() * draw.normal(
        size=(50, *policy.statistics.mean.shape)
    ), np.float32)
    said = subprocess.run(
        [program, tmp_path / "policy.onnx"], check=True, text=True, capture_output=True,
        input="\n".join(" ".join(map(str, row)) for row in observations),
    ).stdout
    found = np.array([[float(x) for x in line.split()] for line in said.splitlines()])
    wanted = np.asarray(policy(observations)).reshape(50, -1)
    assert len(np.unique(wanted)) > 1
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_the_program_in_c_says_what_is_wrong(program, tmp_path):
    def fails(*arguments, given=""):
        process = subprocess.run(
            [program, *arguments], input=given, capture_output=True, text=True, check=False
        )
        assert process.returncode == 1
        return process.stderr

    assert "usage" in fails()
    assert "File doesn't exist" in fails(tmp_path / "none.onnx")
    sampling = jtrust.export(
        PRETRAINED / "hopper", format="onnx", output=tmp_path / "s.onnx", stochastic=True
    ).path
    assert "the policy samples" in fails(sampling)
    mode = jtrust.export(PRETRAINED / "hopper", format="onnx", output=tmp_path / "m.onnx").path
    assert "not whole" in fails(mode, given="1 2 3")


@pytest.mark.nightly
def test_onnx_runtime_alone_balances_the_cart_pole_in_mujocos_own_simulator(tmp_path):
    home = jtrust.evaluate(PRETRAINED / "CartpoleBalance", episodes=16)
    jtrust.export(
        PRETRAINED / "CartpoleBalance", format="onnx", output=tmp_path / "policy.onnx"
    )
    playground = Path(importlib.util.find_spec("mujoco_playground").origin).parent
    model = playground / "_src" / "dm_control_suite" / "xmls" / "cartpole.xml"
    without_jax = (
        "import runpy, sys; sys.modules['jax'] = sys.modules['jtrust'] = None; del sys.argv[0]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    said = subprocess.run(
        [sys.executable, "-P", "-c", without_jax, ROOT / "examples" / "mujoco_policy.py",
         tmp_path / "policy.onnx", model, "--no-viewer", "--episodes", "16"],
        check=True, capture_output=True, text=True, cwd=tmp_path,
    ).stdout
    returns = [float(line.split()[1]) for line in said.splitlines()]
    assert len(returns) == 16
    assert statistics.mean(returns) == pytest.approx(home["return_mean"], rel=0.01)
    assert min(returns) > 0.95 * home["return_mean"]
