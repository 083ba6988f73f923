"""Code on pages: it is read as it stands, and every command is one that jtrust takes."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from jtrust.cli import COMMANDS, main, parsing
from scripts.site import command_line
from scripts.site.blocks import Block, blocks, keep, run

ROOT = Path(__file__).parents[2]
PAGES = sorted({*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"})
HAND_WRITTEN = [p for p in PAGES if "evidence" not in p.parts or p.parent.name == "evidence"]


def _named(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_python_is_python_and_small_sizes_are_there(page):
    for block in blocks(page.read_text()):
        code = block.small()
        if block.language == "python":
            ast.parse(code)


def _commands(text):
    """Lines that begin with `jtrust`, as words, without what is a pattern and no command."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in re.findall(r"(?:^|`)\s*(?:\.venv/bin/)?(jtrust [a-z]+ [^`\n]*)", joined, re.M):
        words = shlex.split(line, comments=True)
        pattern = any(re.search(r"[A-Z]{3,}|\.\.\.|[|<>\[\]]", word) for word in words)
        if not pattern and len(words) > 1 and words[1] in COMMANDS:
            yield words[1:]


def _parse(words):
    """Parses as the command does; BadArgument or SystemExit where it would end."""
    import importlib

    from jtrust.cli.presets import with_preset

    command, args = words[0], words[1:]
    if command in ("envs",) or "--help" in args:
        return
    kind = getattr(importlib.import_module(f"jtrust.cli.{command}"), command_line.OPTIONS[command])
    if command == "sweep":
        import dataclasses
        from typing import Annotated

        from tyro.conf import OmitArgPrefixes

        from jtrust.algorithms import ALGORITHMS
        from jtrust.cli.lists import lists_of, values_of
        from jtrust.cli.sweep import _algorithms

        names = _algorithms(args)
        assert set(names) <= set(ALGORITHMS)
        both = dataclasses.make_dataclass("Sweep", [
            ("options", Annotated[kind, OmitArgPrefixes]),
            ("settings", Annotated[lists_of(names), OmitArgPrefixes]),
        ])
        values_of(parsing.parse(both, command, args).settings, names)
    elif command in command_line.TRAINING:
        args = with_preset(args, kind) if command == "train" else args
        parsing.parse_training(kind, command, args)
    else:
        parsing.parse(kind, command, args)


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=_named)
def test_commands_are_taken(page):
    text = re.sub(r"<!-- not run: it is wrong -->\n```.*?```", "", page.read_text(), flags=re.S)
    for words in _commands(text):
        _parse(words)


def test_a_wrong_command_is_found():
    """The test above sees what it should."""
    from jtrust import BadArgument

    words = list(_commands("```sh\njtrust train brax/ant --max-klm 3   # wrong\n```"))
    assert words == [["train", "brax/ant", "--max-klm", "3"]]
    with pytest.raises(BadArgument):
        _parse(words[0])


@pytest.mark.parametrize("command", sorted(command_line.OPTIONS))
def test_the_page_of_the_command_line_has_what_help_has(command, capsys):
    page = command_line.page()
    section = page.split(f"## jtrust {command} ")[1].split("\n## ")[0]
    if command in command_line.TRAINING:
        section += page.split("## Settings of the algorithms")[1]
    env = ["brax/ant"] if command in command_line.TRAINING else []
    with pytest.raises(SystemExit):
        main([command, *env, "--help"])
    line = r"^│?\s*(?:-h, )?(--[a-z][a-z-]+)(?:, --[a-z-]+)?(?:\s+[A-Z{\[]|\s*│|\s{2}|$)"
    first = re.findall(line, capsys.readouterr().out, re.M)
    assert len(first) >= 1
    assert not {o for o in first if f"`{o}`" not in section} - {"--help"}


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=_named)
def test_pages_speak_of_what_is(page):
    """No page tells what an earlier form of it said, or what used to be."""
    text = page.read_text()
    found = re.search(
        r"used to be|no longer|formerly|as before\b|earlier (version|form) of this|was changed to|"
        r"defaults? of (then|the time)|this page (now|used)|any more\b", text,
    )
    allowed = {"evidence/decisions.md", "evidence/trials.md"}
    if page.is_relative_to(ROOT / "docs") and str(page.relative_to(ROOT / "docs")) in allowed:
        return
    assert not found, found


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md",
                                  "checkpoints/pretrained/README.md"])
def test_links_of_pages_beside_the_site(name):
    """Files and anchors that they name are there; the README fits on a screen."""
    path = ROOT / name
    text = path.read_text()
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)", text):
        to = path.parent / target
        assert to.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", to.read_text(), re.M)
            slugs = [re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings]
            assert anchor[1:] in slugs, (target, anchor)
    assert name != "README.md" or text.count("\n") < 120


def test_blocks_are_read_with_their_notes():
    text = (
        "<!-- file: a.py -->\n```python\nx = 1\n```\n\n<!-- small: 100 => 2; b => c -->\n"
        "<!-- keep: p.svg -->\n```sh\nrun 100 b\n```\n\n  ```python\n  indented = 1\n  ```\n"
        "<!-- output: 1 -->\n```text\nold\n```\n"
    )
    one, two, three, four = blocks(text)
    assert one.notes == {"file": "a.py"} and not one.runs
    assert two.small() == "run 2 c\n" and two.notes["keep"] == "p.svg" and two.runs
    assert three.code == "indented = 1\n"
    assert four.language == "text" and not four.runs
    with pytest.raises(ValueError, match="no '3'"):
        Block("sh", "echo", {"small": "3 => 1"}, (0, 0)).small()


def test_a_page_runs_in_order_and_keeps_its_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 20\nopen('p.svg', 'w').write('s')\n```\n<!-- small: + 1 => + 2 -->\n"
        "<!-- keep: p.svg -->\n```python\nprint('first')\nprint(x + 1)\n```\n\n"
        "<!-- output: 1 -->\n```text\nold\n```\n```sh\necho shell\n```\n"
        "<!-- output: 1 -->\n```text\n```\n<!-- not run: no -->\n```sh\nfalse\n```\n"
    )
    assert run(page, tmp_path, small=True)[1] == "first\n22\n"
    keep(page, tmp_path, run(page, tmp_path, small=False))
    assert "```text\n21\n```" in page.read_text() and "```text\nshell\n```" in page.read_text()
    assert (tmp_path / "figures/p.svg").read_text() == "s"
    page.write_text("```sh\necho said; false\n```\n")
    with pytest.raises(RuntimeError, match="said"):
        run(page, tmp_path, small=True)
