"""Targets by name, and the answers to what is none."""

import importlib.util

import pytest

from jtrust.checks import BadArgument
from jtrust.planning import targets
from jtrust.planning.targets import devices_of, find_target, gpus


@pytest.mark.parametrize("name", gpus())
def test_xla_takes_every_gpu_that_has_a_name(name):
    target = find_target(name)
    (device,) = devices_of(target)
    assert device.platform == "gpu" and device.device_kind.startswith("NVIDIA")
    assert 20e9 < target.memory_bytes < 300e9
    assert target.usable_bytes == int(0.75 * target.memory_bytes)


@pytest.mark.parametrize(("name", "count", "hosts"), [
    ("h100:4", 4, 1), ("h100:2x4", 8, 2), ("v5e:1x1", 1, 1), ("v5e:2x2", 4, 1),
    ("v5e:16x16", 256, 64), ("v4:2x2x1", 8, 1), ("v6e:2x2", 4, 1), ("cpu:2", 2, 1),
])
def test_names_tell_how_many_devices(name, count, hosts):
    devices = devices_of(find_target(name))
    assert len(devices) == count
    assert len({device.process_index for device in devices}) == hosts


def test_a_file_describes_a_gpu(tmp_path):
    text = (targets.resources.files("jtrust.planning") / "gpus" / "a100.txtpb").read_text()
    path = tmp_path / "mine.txtpb"
    path.write_text(text.replace("device_memory_size: 85100068864", "device_memory_size: 1000000"))
    target = find_target(f"{path}:2")
    assert (target.memory_bytes, target.shape) == (1_000_000, (1, 2))
    assert len(devices_of(target)) == 2


def test_the_share_of_a_gpu_is_what_jax_is_told_to_take(monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    target = find_target("h100")
    assert target.usable_bytes == target.memory_bytes // 2


@pytest.mark.parametrize(("name", "words"), [
    ("h10", "did you mean h100"), ("a100-8", "a100"), ("v5:2x2", "v5e:2x2"), ("gpu", "choose from"),
    ("cerebras", "choose from"), ("/", "cannot be read"),
    ("", "must be a name"), (None, "must be a name"), ("v5e", "v5e:2x2"), ("v5e:2", "v5e:2x2"),
    ("cpu:2x2", "cpu:N"), ("./nowhere.txtpb", "cannot be read"),
    (__file__, "no description"), ("h100:0", "unknown target"),
])
def test_what_is_no_target_is_told_in_one_line(name, words):
    with pytest.raises(BadArgument, match=r"target=") as caught:
        find_target(name)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_topology_that_xla_does_not_know_is_told_in_one_line():
    with pytest.raises(BadArgument, match="XLA does not take it") as caught:
        devices_of(find_target("v5e:3x3"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "missing", "extra"), [
    ("h100", "jax_plugins", "plan-gpu"), ("v5e:2x2", "libtpu", "plan-tpu"),
])
def test_what_is_not_installed_is_named(name, missing, extra, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda module: None if module == missing else find(module)
    )
    with pytest.raises(BadArgument, match=rf"pip install 'jtrust\[{extra}\]'"):
        find_target(name)
