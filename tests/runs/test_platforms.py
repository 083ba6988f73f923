"""Plugins of accelerators that are not there."""

import jax
import pytest

from jtrust.runs import platforms


@pytest.fixture
def told(monkeypatch):
    """What JAX is told, from nothing."""
    said = {}

    class Config:
        jax_platforms = None

        def update(self, name, value):
            said[name] = value

    monkeypatch.setattr(jax, "config", Config())
    return said


@pytest.mark.parametrize(("device", "plugins", "expected"), [
    (None, {"xla_cuda13"}, {"jax_platforms": "cpu"}),
    ("nvidia0", {"xla_cuda13"}, {}),
    ("dxg", {"xla_cuda12"}, {}),
    ("accel0", {"xla_cuda13"}, {}),
    ("vfio/0", set(), {}),
    ("null", {"xla_cuda13"}, {"jax_platforms": "cpu"}),
    (None, {"xla_cuda13", "another"}, {}),
])
def test_jax_is_told_of_the_cpu_where_there_is_nothing_else(
    told, tmp_path, monkeypatch, device, plugins, expected
):
    monkeypatch.setattr(platforms, "installed_plugins", lambda: plugins)
    if device:
        (tmp_path / device).parent.mkdir(exist_ok=True)
        (tmp_path / device).touch()
    platforms.without_absent_accelerators(str(tmp_path))
    assert told == expected


def test_what_a_user_says_stands(told, tmp_path, monkeypatch):
    monkeypatch.setattr(jax.config, "jax_platforms", "cuda", raising=False)
    platforms.without_absent_accelerators(str(tmp_path))
    assert told == {}


def test_the_plugin_of_the_extra_is_found():
    assert "xla_cuda13" in platforms.installed_plugins()
