"""What a release is checked by, without the minutes that installing takes."""

import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from scripts import check_release


def test_the_lowest_versions_are_the_lowest_that_the_package_asks_for():
    with open(check_release.ROOT / "pyproject.toml", "rb") as file:
        asked = {
            r.name: r.specifier
            for r in map(Requirement, tomllib.load(file)["project"]["dependencies"])
        }
    pins = {r.name: r.specifier for r in map(Requirement, check_release.lowest())}
    assert pins.keys() == asked.keys()
    for name, specifier in pins.items():
        (pin,) = specifier
        assert pin.operator == "==" and pin.version in asked[name]
        below = [s for s in asked[name] if s.operator == ">="]
        assert [Version(s.version) for s in below] == [Version(pin.version)]


def test_an_interpreter_is_of_the_version_that_was_asked_for():
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = check_release.find_python(own)
    said = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    assert said.startswith(f"Python {own}.")
    assert check_release.find_python("9.9") is None


def test_what_does_not_train_is_named_in_the_table(tmp_path):
    broken = tmp_path / "nothing.whl"
    broken.write_text("no wheel")
    row = check_release.attempt(tmp_path, sys.executable, "3.x", "newest", broken)
    assert row["result"].startswith("fails: ")
    assert row["result"] in check_release.as_table([row])
    assert not (tmp_path / "3.x-newest").exists()


@pytest.mark.nightly
def test_the_wheel_and_the_source_distribution_hold_the_whole_package(tmp_path):
    wheel, source = check_release.build(tmp_path)
    assert wheel.name.startswith("jtrust-") and source.name.startswith("jtrust-")
