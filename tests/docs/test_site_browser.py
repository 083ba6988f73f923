"""The site in a real browser, where there is a Chromium: how it looks, and its own search."""

import json

import pytest

from tests.docs.test_site import QUESTIONS
from tests.reporting.browser import browser

# What leaves the page to its right, and does not scroll by itself.
OUTSIDE = """[...document.querySelectorAll('.md-content h1, .md-content h2, .md-content p, '
  + '.md-content li, .md-content img, .md-content .math, .md-content pre')]
  .filter((e) => e.offsetParent && !e.closest('.md-typeset__scrollwrap'))
  .filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map((e) => e.tagName + ' ' + e.textContent.slice(0, 60))"""
# Luminance of what is written and of what it is written on, from 0 to 1.
CONTRAST = """(() => {
  const light = (color) => color.match(/[\\d.]+/g).slice(0, 3)
    .map((x, i) => x / 255 * [0.2126, 0.7152, 0.0722][i]).reduce((a, b) => a + b);
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const ink = light(getComputedStyle(document.querySelector('.md-content p')).color);
  return [paper, ink];
})()"""
SCREENS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
FEW = ["index.html", "understand/ppo.html", "reference/command-line.html"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


def look(page, path, width, scheme):
    """Opens a page in a window of a phone or a desk, and asks what is wrong with it."""
    page.show(width, 900, scheme)
    page.said.clear()
    page.call("Page.navigate", url=path.as_uri())
    there = f"location.href === {json.dumps(path.as_uri())}"
    page.wait_for(f"document.readyState === 'complete' && {there}")
    if page.value("localStorage.length"):  # the scheme before, kept as a reader's choice
        page.value("localStorage.clear(); window.before = true")
        page.call("Page.reload")
        page.wait_for("!window.before && document.readyState === 'complete'")
    paper, ink = page.value(CONTRAST)
    assert (paper < 0.3 and ink > 0.6) if scheme == "dark" else (paper > 0.9 and ink < 0.4)
    assert page.value(OUTSIDE) == [], path
    assert page.value("document.documentElement.scrollWidth") <= width, path
    assert page.said == []


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_pages_fit_on_a_desk_and_on_a_phone(page, site, width, scheme):
    page.requests.clear()
    for name in FEW:
        look(page, site / name, width, scheme)
    assert not [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))]


@pytest.mark.nightly
@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_all_pages_fit(page, site, width, scheme):
    for path in sorted(site.rglob("*.html")):
        if path.name != "404.html":
            look(page, path, width, scheme)


@pytest.mark.parametrize(("question", "words", "where", "said"), QUESTIONS)
def test_the_search_of_the_site_answers_without_a_server(page, site, question, words, where, said):
    """Opened as a file: what a reader types brings the right page among the first three."""
    page.show(1280, 900, "light")
    page.call("Page.navigate", url=f"{(site / 'index.html').as_uri()}?q={words.replace(' ', '+')}")
    found = page.wait_for(
        "(() => { const links = [...document.querySelectorAll('.md-search-result__item > a')];"
        "return links.length && links.slice(0, 3).map((a) => a.href); })()"
    )
    assert any(where in link for link in found), (question, found)
