"""Notebooks for Colab and Kaggle: made from the tutorials, valid, and run at night."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from scripts.site import notebooks
from scripts.site.blocks import Block

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/learn").glob("*.md"))
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@pages
def test_it_is_what_the_page_makes(page):
    kept = nbformat.read(ROOT / f"docs/notebooks/{page.stem}.ipynb", as_version=4)
    nbformat.validate(kept)
    assert kept == notebooks.notebook(page), "python -m scripts.site.notebooks"


@pages
def test_it_installs_from_the_repository_of_one_place(page):
    made = notebooks.notebook(page)
    install = [c for c in made.cells if "install" in c.metadata.get("tags", [])]
    assert len(install) == 1 and f"git+{notebooks.repository()}" in install[0].source
    assert notebooks.repository().removeprefix("https://github.com/") in made.cells[0].source
    assert not any("REPOSITORY_URL" in cell.source for cell in made.cells)
    assert any(cell.cell_type == "code" and "jtrust" in cell.source for cell in made.cells[3:])


@pytest.mark.nightly
@pages
def test_it_runs(page, tmp_path, monkeypatch):
    """All cells but the one that installs, with small sizes, in a kernel of their own."""
    made = notebooks.notebook(page)
    made.cells = [c for c in made.cells if "install" not in c.metadata.get("tags", [])]
    for cell in made.cells:
        if small := cell.metadata.get("small"):
            cell.source = Block("python", cell.source, {"small": small}, (0, 0)).small()
        # One picture is a page of HTML with small sizes, which needs no graphics.
        if "first.png" in cell.source and "display" in cell.source:
            cell.source = ""
    commands = tmp_path / "bin"
    commands.mkdir()
    import sys

    (commands / "jtrust").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jtrust "$@"\n')
    (commands / "jtrust").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    NotebookClient(made, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
