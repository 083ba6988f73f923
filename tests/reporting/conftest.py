import pytest

from tests.reporting.made import write_run


@pytest.fixture
def run_dir(tmp_path):
    """A run in which all is well."""
    return write_run(tmp_path / "run")
