#!/usr/bin/env python3
"""Writes the tutorials as notebooks for Colab and Kaggle: docs/notebooks/.

    python -m scripts.site.notebooks

They are made from docs/learn/: what a page says in text, its Python and its commands. A first cell
installs jtrust from the repository that mkdocs.yml names, with what the runtime's CPU, GPU or TPU
needs.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from scripts.site.blocks import FENCE, Block, blocks

ROOT = Path(__file__).resolve().parents[2]
PAGES, PLACE = ROOT / "docs/learn", ROOT / "docs/notebooks"

INSTALL = '''\
# CPU, GPU and TPU runtimes alike. A minute or two.
import os
import shutil
import subprocess
import sys

extras = ["render", "report"]
if shutil.which("nvidia-smi"):
    extras.append("cuda")
elif os.path.exists("/dev/accel0") or os.path.exists("/dev/vfio/0") or "TPU_NAME" in os.environ:
    extras.append("tpu")
source = f"jtrust[{','.join(extras)}] @ git+REPOSITORY_URL"
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)
# Commands are processes beside this one. They share a GPU; a TPU is for one process at a time.
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
if "tpu" in extras:
    import jax

    jax.config.update("jax_platforms", "cpu")
'''


def repository() -> str:
    """The repository's address, from mkdocs.yml."""
    found = re.search(r"^repo_url: (\S+)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert found, "mkdocs.yml names no repo_url"
    return found.group(1).rstrip("/")


def notebook(page: Path) -> Any:
    """A page as a notebook.

    Cells have an id of their page and number, so that the same page makes the same file.
    """
    text, address = page.read_text(), repository()
    cells = [new_markdown_cell(_badges(page, address))]
    title, text = text.split("\n", 1)
    cells += [new_markdown_cell(title), new_code_cell(INSTALL.replace("REPOSITORY_URL", address))]
    cells[-1].metadata["tags"] = ["install"]
    at = 0
    for found, block in zip(FENCE.finditer(text), blocks(text), strict=True):
        cells += _text(text[at:found.start()], page, address)
        at = found.end()
        cells += _code(block)
    cells += _text(text[at:], page, address)
    for i, cell in enumerate(cells):
        cell["id"] = f"{page.stem}-{i}"
    made = new_notebook(cells=cells)
    made.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"}, "accelerator": "GPU",
    }
    return made


def links(page: Path, address: str) -> dict[str, str]:
    """Where the notebook of a page is opened, by the name of who opens it."""
    path = f"{address.removeprefix('https://github.com/')}/blob/main/docs/notebooks/{page.stem}.ipynb"
    return {
        "Colab": f"https://colab.research.google.com/github/{path}",
        "Kaggle": f"https://kaggle.com/kernels/welcome?src=https://github.com/{path}",
    }


def _badges(page: Path, address: str) -> str:
    pictures = {
        "Colab": "https://colab.research.google.com/assets/colab-badge.svg",
        "Kaggle": "https://kaggle.com/static/images/open-in-kaggle.svg",
    }
    return " ".join(
        f"[![Open in {name}]({pictures[name]})]({to})" for name, to in links(page, address).items()
    )


def _text(text: str, page: Path, address: str) -> list[Any]:
    """Text between blocks: links lead to the repository, and pictures that the page shows are
    those that its cells make."""
    text = re.sub(r"<!--.*?-->\n?", "", text)
    text = re.sub(r"!\[[^\]]*\]\(figures/([^)]*)\)\n?", "", text)

    def outside(found: re.Match) -> str:
        target = found.group(1)
        if re.match(r"https?:|#", target):
            return found.group(0)
        full = posixpath.normpath(posixpath.join("docs/learn", target))
        return f"]({address}/blob/main/{full})"

    text = re.sub(r"\]\(([^)\s]+)\)", outside, text).strip()
    return [new_markdown_cell(text)] if text else []


def _code(block: Block) -> list[Any]:
    code = block.code.rstrip("\n")
    if "file" in block.notes:
        cell = new_code_cell(f"%%writefile {block.notes['file']}\n{code}")
    elif not block.runs:
        return [] if "output" in block.notes or "first_hour" in str(block.notes) else [
            new_markdown_cell(f"```{block.language}\n{code}\n```")
        ]
    elif block.language == "sh":
        cell = new_code_cell(f"%%bash\n{code}")
    else:
        cell = new_code_cell(code)
    if "small" in block.notes:
        cell.metadata["small"] = block.notes["small"]
    shown = block.notes.get("keep", "").split()
    show = "from IPython.display import display, Image, SVG\n" + "\n".join(
        f"display({'SVG' if name.endswith('.svg') else 'Image'}({name!r}))" for name in shown
    )
    return [cell, new_code_cell(show)] if shown else [cell]


def main() -> None:
    PLACE.mkdir(exist_ok=True)
    for page in sorted(PAGES.glob("*.md")):
        nbformat.write(notebook(page), PLACE / f"{page.stem}.ipynb")
        print(PLACE / f"{page.stem}.ipynb")


if __name__ == "__main__":
    main()
