"""What every test needs that compiles for a TPU in the tests' own process."""

import os

import pytest

from jtrust.planning.processes import QUIET


@pytest.fixture(autouse=True, scope="session")
def libtpu_beside_others():
    """Other workers load libtpu too, which otherwise locks it for one process."""
    before = dict(os.environ)
    os.environ.update({k: v for k, v in QUIET.items() if k != "JAX_PLATFORMS"})
    yield
    for name in QUIET:
        os.environ.pop(name, None)
        if name in before:
            os.environ[name] = before[name]
