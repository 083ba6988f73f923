"""The rows of docs/evidence/export/tables.md."""

import pytest

from scripts.benchmarks import export


@pytest.mark.slow
def test_a_row_says_how_near_a_file_is_and_why_there_is_none(tmp_path):
    cells = export._parity(tmp_path, "CartpoleBalance", "onnx", False).split(" | ")
    assert cells[:3] == ["| CartpoleBalance", "onnx", "mode"] and float(cells[3]) < 1e-5
    assert (tmp_path / "CartpoleBalance-mode.onnx").exists()
    assert "none of brax's networks" in export._parity(tmp_path, "CartPole", "brax", False)


def test_all_policies_with_a_card_are_in():
    assert {"hopper", "CartPole", "CartpoleBalance"} <= set(export.names())
