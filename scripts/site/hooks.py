"""What mkdocs does for this site beside its plugins: see mkdocs.yml.

Equations become MathML, so that no script draws them. Links that lead out of docs/ become links to
the repository, and must lead to a file that is there. The page of the command line and the table of
presets are made from the code.
"""

from __future__ import annotations

import html
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.site import command_line, notebooks

COMMAND_LINE = "reference/command-line.md"

_LINK = re.compile(r"(?<!!)(\[[^\]\n]*\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(\))")
_MATH = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.S)


def on_files(files: Any, config: Any) -> Any:
    files.append(File.generated(config, COMMAND_LINE, content=command_line.page()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    here = posixpath.dirname(page.file.src_uri)

    def outside(found: re.Match) -> str:
        start, target, anchor, end = found.group(1), found.group(2), found.group(3) or "", found[4]
        full = posixpath.normpath(posixpath.join("docs", here, target))
        if full.startswith("docs/") and (Path(config.docs_dir) / full[5:]).suffix == ".md":
            return found.group(0)
        path = ROOT / full
        if full.startswith("docs/") and path.is_file():
            return found.group(0)
        if full == f"docs/{COMMAND_LINE}":
            return found.group(0)
        if full.startswith("..") or not path.exists():
            raise PluginError(f"{page.file.src_uri}: {target} leads to nothing")
        kind = "tree" if path.is_dir() else "blob"
        return f"{start}{config.repo_url.rstrip('/')}/{kind}/main/{full}{anchor}{end}"

    markdown = markdown.replace("REPOSITORY_URL", config.repo_url)
    if here == "learn":
        where = notebooks.links(Path(page.file.src_uri), config.repo_url.rstrip("/"))
        opened = ", ".join(f"[{name}]({to})" for name, to in where.items())
        title, rest = markdown.split("\n", 1)
        markdown = f"{title}\n\n*As a notebook: {opened}.*\n{rest}"
    if "PRESETS_TABLE" in markdown:
        markdown = markdown.replace("PRESETS_TABLE", presets_table())
    return _LINK.sub(outside, markdown)


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    return _MATH.sub(_mathml, content)


def _mathml(found: re.Match) -> str:
    text = html.unescape(found.group(2)).strip()
    block = text.startswith("\\[")
    made = convert(text[2:-2].strip(), display="block" if block else "inline")
    return f'<div class="math">{made}</div>' if block else made


def presets_table() -> str:
    """What presets there are, with the evidence of each."""
    from jtrust import presets

    lines = ["| task | settings | preset, 95 % interval | defaults | seeds | steps | evidence |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for name in presets.names():
        preset = presets.load(name)
        found = preset.evidence
        settings = [preset.algorithm]
        settings += map(_shown, {**preset.env_options, **preset.settings}.items())
        means = [f"{x['mean']:g} [{x['low']:g}, {x['high']:g}]"
                 for x in (found.preset, found.defaults)]
        page = found.page.removeprefix("docs/")
        lines.append(" | ".join([
            f"| `{name}`", ", ".join(settings), *means, f"{found.seeds} each",
            f"{found.steps:,}", f"[runs](../{page}) |",
        ]))
    return "\n".join(lines)


def _shown(setting: tuple[str, Any]) -> str:
    name, value = setting
    return f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
