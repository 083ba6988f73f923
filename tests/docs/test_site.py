"""The built site: whole, without a network, and found in by its own search."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urldefrag

import pytest
from lunr import lunr
from mkdocs.exceptions import PluginError

import jtrust
from jtrust.cli import COMMANDS
from scripts.site import hooks

ROOT = Path(__file__).parents[2]


class _Page(HTMLParser):
    """Links, what is loaded, and anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.anchors, self.alts = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[k] for k in ("id", "name") if attrs.get(k)}
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        source = attrs.get("src") or (attrs.get("href") if tag == "link" else None)
        if source and attrs.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(source)
        if tag == "img":
            self.alts.append(attrs.get("alt"))


@pytest.fixture(scope="module")
def pages(site):
    return {path: _Page(path.read_text()) for path in site.rglob("*.html")}


def test_every_link_and_anchor_leads_somewhere(site, pages):
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # is served for any address
            continue
        for link in page.links:
            target, anchor = urldefrag(link)
            if re.match(r"[a-z]+:", target):
                continue
            to = (path.parent / unquote(target)).resolve() if target else path
            good = to.exists() and (not anchor or to not in pages or anchor in pages[to].anchors)
            if not good and anchor != "__codelineno":
                broken.append((str(path.relative_to(site)), link))
    assert not broken


def test_nothing_is_loaded_from_a_network(site, pages):
    loaded = {x for page in pages.values() for x in page.loaded if re.match(r"(https?:)?//", x)}
    assert not loaded
    for path in [*site.rglob("*.css"), *(site / "assets").glob("*.js")]:
        assert not re.search(r"@import\s+.?https?:|url\(.?https?:", path.read_text()), path


def test_pictures_say_what_they_show(pages):
    assert all(alt for page in pages.values() for alt in page.alts)


def test_equations_are_drawn_without_scripts(site):
    text = (site / "understand/trpo.html").read_text()
    assert text.count("<math") > 5 and "arithmatex" not in text and "\\frac" not in text


def test_every_command_and_public_name_has_its_place(site, pages):
    text = (site / "reference/command-line.html").read_text()
    assert all(f"jtrust {command}" in text for command in COMMANDS)
    anchors = pages[site / "reference/python.html"].anchors
    for name in jtrust.__all__:
        if name != "__version__":
            assert any(a == f"jtrust.{name}" or a.endswith(f".{name}") for a in anchors), name


@pytest.fixture(scope="module")
def find(site):
    """words -> pages and their text, the best first, as the site's own search ranks them."""
    documents = json.loads((site / "search/search_index.json").read_text())["docs"]
    by_place = {d["location"]: d for d in documents}
    index = lunr(
        ref="location", fields=[{"field_name": "title", "boost": 1000}, {"field_name": "text"}],
        documents=documents,
    )

    def found(words):
        # Material asks for all words and for their beginnings.
        asked = " ".join(f"+{word}" for word in words.split())
        return [by_place[hit["ref"]] for hit in index.search(asked)]

    return found


# A reader's question, what they type, where they should land, and what they should read there.
QUESTIONS = [
    ("How many environments on my GPU?", "environments gpu", "learn/thousands.html",
     "jtrust plan brax/ant"),
    ("Why is my KL zero?", "kl zero", "learn/reading-a-run.html",
     "Nothing tells one policy from another"),
    ("How do I resume on two hosts?", "resume two hosts", "do/preempted.html", "--num-processes 2"),
    ("How does the policy get onto my robot?", "export robot", "do/export.html", "onnx"),
    ("What is different from brax?", "different brax", "do/from-brax.html", "drawn back"),
]


@pytest.mark.parametrize("question, words, page, said", QUESTIONS)
def test_one_search_answers(find, question, words, page, said):
    first = find(words)[:3]
    assert first, question
    places = [d["location"].split("#")[0] for d in first]
    assert page in places, (question, [d["location"] for d in first])


@pytest.mark.parametrize("question, words, page, said", QUESTIONS)
def test_the_answer_stands_there(site, question, words, page, said):
    text = re.sub(r"<[^>]+>", "", (site / page).read_text())
    assert said in " ".join(text.split()), question


def test_links_out_of_the_pages_lead_to_the_repository():
    """A file that is there becomes a link to the repository; one that is not ends the build."""
    config = SimpleNamespace(docs_dir=str(ROOT / "docs"), repo_url="https://example.org/r/")
    page = SimpleNamespace(file=SimpleNamespace(src_uri="do/some.md"))

    def made(text):
        return hooks.on_page_markdown(text, page, config, None)

    assert made("[x](../../jtrust/policy.py)") == (
        "[x](https://example.org/r/blob/main/jtrust/policy.py)"
    )
    assert made("[x](../../scripts)") == "[x](https://example.org/r/tree/main/scripts)"
    assert made("[x](hosts.md#a)") == "[x](hosts.md#a)"
    for gone in ("../../jtrust/none.py", "../../../outside"):
        with pytest.raises(PluginError, match="leads to nothing"):
            made(f"[x]({gone})")


def test_an_equation_becomes_mathml():
    good = hooks.on_page_content('<span class="arithmatex">\\(a &lt; b\\)</span>', None, None, None)
    assert good.startswith("<math") and "<mi>a</mi>" in good and "arithmatex" not in good
