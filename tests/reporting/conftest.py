import pytest

from tests.reporting.chromium import find_chromium
from tests.reporting.made import write_run

# What the page holds is tested without a browser; how it looks in one, where there is one.
collect_ignore = [] if find_chromium() else ["test_report_browser.py"]


@pytest.fixture
def run_dir(tmp_path):
    """A run in which all is well."""
    return write_run(tmp_path / "run")
