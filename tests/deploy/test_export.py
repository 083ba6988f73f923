"""`jtrust export`: files that other programs read, and one line where there is none."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

import jtrust
from jtrust.cli import main
from jtrust.deploy import export as exporting
from jtrust.deploy import onnx_format, stablehlo_format
from jtrust.deploy.acting import Acting
from jtrust.deploy.parity import compare
from jtrust.distributions import DiagonalGaussian
from jtrust.environments.base import Box
from tests.deploy.policies import make_policy

ROOT = Path(__file__).resolve().parents[2]
HOPPER = ROOT / "checkpoints" / "pretrained" / "hopper"
CARTPOLE = ROOT / "checkpoints" / "pretrained" / "CartPole"
WITHOUT_JTRUST = "import sys; sys.modules['jtrust'] = None\n"


def refused(arguments, capfd, status=2):
    """The one line with which `jtrust export` answers."""
    capfd.readouterr()
    assert main(["export", *map(str, arguments)]) == status
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1, captured
    assert captured.err.startswith("jtrust: ")
    return captured.err


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """hopper in all three formats, in one directory."""
    place = tmp_path_factory.mktemp("exported")
    for name, ending in exporting.FORMATS.items():
        jtrust.export(HOPPER, format=name, output=place / f"hopper{ending}")
    return place


@pytest.mark.slow
def test_the_programs_of_the_page_run_where_there_is_no_jtrust(exported):
    page = (ROOT / "docs/do/export.md").read_text()
    programs = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(programs) == 3
    wanted = jtrust.load_policy(HOPPER)(np.zeros((1, 11)))
    for program in programs:
        program += "\nprint(*np.asarray(actions)[0])"
        said = subprocess.run(
            [sys.executable, "-P", "-c", WITHOUT_JTRUST + program], cwd=exported, check=True,
            capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"},
        ).stdout
        np.testing.assert_allclose([float(x) for x in said.split()], wanted[0], atol=2e-5)


@pytest.mark.slow
def test_the_contract_says_what_goes_in_and_out_and_whose_it_is(exported):
    assert len(list(exported.iterdir())) == 6
    for name, ending in exporting.FORMATS.items():
        file = exported / f"hopper{ending}"
        contract = json.loads((exported / f"hopper{ending}.json").read_text())
        assert contract["format"] == name and contract["file"] == file.name
        assert contract["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert contract["inputs"][0] == {
            "name": "observations", "shape": ["batch", 11], "dtype": "float32",
            "meaning": "as the environment gives them",
        }
        assert contract["outputs"][0]["shape"] == ["batch", 3]
        assert contract["action"]["range"] == [-1, 1] and contract["policy"] == "mode"
        assert contract["environment"]["name"] == "brax/hopper"
        assert contract["environment"]["options"] == {"backend": "spring"}
        assert contract["run"]["step"] == 5_001_216 and contract["run"]["seed"] == 0
        assert contract["versions"]["jax"] == jax.__version__
        assert contract["parity"]["largest_difference"] < 1e-5
    assert contract["sampled_parity"]["largest_difference"] < 1e-5  # of brax
    stored = onnx.load(exported / "hopper.onnx")
    assert {x.key: json.loads(x.value) for x in stored.metadata_props}["jtrust.run"]["seed"] == 0
    assert [x.name for x in (*stored.graph.input, *stored.graph.output)] == [
        "observations", "actions"
    ]


@pytest.mark.slow
def test_stablehlo_keeps_its_precision_and_is_for_all_devices(exported):
    found = jax.export.deserialize(bytearray((exported / "hopper.stablehlo").read_bytes()))
    assert found.platforms == ("cpu", "cuda", "tpu")
    products = re.findall(r"stablehlo.dot_general.*", found.mlir_module())
    assert len(products) >= 3 and all("[HIGHEST, HIGHEST]" in x for x in products)
    for batch in (1, 4096):
        assert found.call(jnp.zeros((batch, 11)))[0].shape == (batch, 3)


def test_a_command_says_what_it_wrote(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(CARTPOLE), "--format", "onnx", "--stochastic"]) == 0
    said = capfd.readouterr()
    assert said.out.startswith("CartPole.onnx: the sample of ") and "10,000" in said.out
    # The same again takes its place.
    assert main(["export", str(CARTPOLE), "--format", "onnx", "--json"]) == 0
    contract = json.loads(capfd.readouterr().out)
    assert contract["policy"] == "mode" and contract["path"] == "CartPole.onnx"
    assert [x["name"] for x in contract["outputs"]] == ["actions", "logits"]
    assert contract["outputs"][0]["dtype"] == "int32" and contract["action"]["n"] == 2
    assert sorted(os.listdir()) == ["CartPole.onnx", "CartPole.onnx.json"]


class Own(nn.Module):
    @nn.compact
    def __call__(self, x):
        mean = nn.Dense(1)(nn.LayerNorm()(nn.relu(nn.Dense(8)(x))))
        return DiagonalGaussian(mean, self.param("log_std", nn.initializers.zeros, (1,)))


class Sorting(Own):
    def __call__(self, x):
        return super().__call__(jnp.sort(x, axis=-1))


class WithUnits:
    observation_units = ("m", "N")
    action_units = ("N",)


@pytest.mark.slow
def test_networks_of_ones_own_are_exported_from_python(tmp_path, point):
    def exported(network, name, **options):
        return jtrust.export(
            tmp_path / "run", policy_network=network, output=tmp_path / name, **options
        )

    jtrust.train(
        point, total_steps=64, num_envs=16, unroll_length=4, devices=1, run_dir=tmp_path / "run",
        policy_network=Own(),
    )
    found = exported(Own(), "it.onnx", format="onnx", stochastic=True, env=WithUnits())
    assert found.contract["units"] == {"observations": ["m", "N"], "actions": ["N"]}
    assert found.contract["run"]["own_networks"] == {"policy_network": "Own"}
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(jtrust.BadArgument, match=r"policy_network.*Own"):
        exported(None, "it.onnx", format="onnx")
    with pytest.raises(jtrust.BadArgument, match="none of brax's networks"):
        exported(Own(), "it.brax", format="brax")
    WithUnits.action_units = "N m"
    with pytest.raises(jtrust.BadArgument, match="must be 1 texts"):
        exported(Own(), "it.onnx", format="onnx", env=WithUnits())
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.slow
def test_stablehlo_says_what_onnx_cannot(tmp_path):
    acting = Acting.of(make_policy(Box(1), custom=Sorting()), True)
    with pytest.raises(jtrust.BadArgument, match="sort has no counterpart"):
        onnx_format.write(tmp_path / "it", acting, {})
    stablehlo_format.write(tmp_path / "it", acting)
    runtime = stablehlo_format.Runtime(tmp_path / "it")
    assert compare(acting, runtime.batches, runtime.name).largest_difference < 1e-6


@pytest.mark.parametrize(("arguments", "said"), [
    (["--format", "onx"], "--format onx: unknown format; did you mean onnx?"),
    (["--format", "onnx", "--output", ""], "is empty"),
    (["--format", "onnx", "--output", "no/where.onnx"], "no is no directory"),
    (["--format", "onnx", "--output", "folder"], "is a directory; name a file"),
    (["--format", "onnx", "--output", "new/"], "is a directory; name a file"),
    (["--format", "onnx", "--output", "mine.onnx"], "is no earlier export; remove it"),
    (["--format", "onnx", "--output", "other"], "other: exists and is no earlier export"),
    (["--format", "onnx", "--output", "link"], "is a symbolic link"),
    (["--format", "onnx", "--output", "x" * 252], "cannot be a path"),
    (["--format", "onnx", "--output", "gs://bucket/x"], "is not on this machine"),
    (["--format", "onnx", "--output", "/proc/x.onnx"], "cannot be written"),
    (["--format", "onnx", "--step", "7"], "7"),
    (["--format", "brax", "--stochastic"], "samples by itself"),
    ([], "--format"),
])
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    arguments, said, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "mine.onnx").write_text("precious")
    (tmp_path / "other.json").write_text('{"file": "another"}')
    (tmp_path / "link").symlink_to("mine.onnx")
    before = sorted(os.listdir())
    assert said in refused([HOPPER, *arguments], capfd)
    assert sorted(os.listdir()) == before and Path("mine.onnx").read_text() == "precious"
    assert os.listdir("folder") == []


def test_runs_that_have_nothing_to_export_are_refused(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "does not exist" in refused(["nowhere", "--format", "onnx"], capfd)
    shutil.copytree(HOPPER, "run")
    shutil.rmtree("run/5001216")
    assert "checkpoint" in refused(["run", "--format", "stablehlo"], capfd)
    load = exporting.load_with_config

    def broken(*args):
        policy, config, step = load(*args)
        policy.params["params"]["log_std"] = policy.params["params"]["log_std"].at[1].set(jnp.nan)
        return policy, config, step

    monkeypatch.setattr(exporting, "load_with_config", broken)
    assert "holds NaN or infinity" in refused([HOPPER, "--format", "onnx"], capfd)
    assert os.listdir() == ["run"]


def test_a_missing_extra_is_named(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, module, None)
        assert "pip install 'jtrust[export]'" in refused([HOPPER, "--format", "onnx"], capfd)
    assert os.listdir() == []


def test_a_file_that_acts_otherwise_is_not_left(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(HOPPER), "--format", "onnx"]) == 0
    before = Path("hopper.onnx.json").read_bytes()
    run = onnx_format.Runtime.batches
    monkeypatch.setattr(
        onnx_format.Runtime, "batches",
        lambda self, batches: [[x + np.float32(3e-5) for x in y] for y in run(self, batches)],
    )
    said = refused([HOPPER, "--format", "onnx"], capfd, status=1)
    assert "does not act as the policy does" in said and "nothing was written" in said
    assert sorted(os.listdir()) == ["hopper.onnx", "hopper.onnx.json"]
    assert Path("hopper.onnx.json").read_bytes() == before


@pytest.mark.slow
def test_a_signal_takes_away_what_is_under_way(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "jtrust", "export", HOPPER, "--format", "stablehlo"], cwd=tmp_path
    )
    while not os.listdir(tmp_path):
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    assert process.wait(60) == 143
    assert os.listdir(tmp_path) == []


def test_jtrust_itself_needs_no_onnx():
    program = "import sys, jtrust; print(sorted({'onnx', 'onnxruntime'} & set(sys.modules)))"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert said == "[]\n"
