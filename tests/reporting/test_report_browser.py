"""The page in a real browser, where there is a Chromium; what it holds is tested without one."""

import json

import pytest

import jtrust
from tests.reporting.browser import browser
from tests.reporting.made import row, write_run
from tests.reporting.test_watch import append, at_once, serving  # noqa: F401

# How many pixels of each chart are not the background: one that is empty has none.
DRAWN = """[...document.querySelectorAll('.chart canvas')].map((canvas) => {
  const copy = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  copy.canvas.width = canvas.width;
  copy.canvas.height = canvas.height;
  copy.drawImage(canvas, 0, 0);
  const data = copy.getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let i = 3; i < data.length; i += 4) count += data[i] > 0;
  return count;
})"""
# Titles, legends and words that lie over each other or leave the page.
OUTSIDE = """[...document.querySelectorAll('h1, h2, h3, figure, nav, .finding, .scroll, .chip')]
  .filter((e) => e.offsetParent)
  .filter((e) => { const r = e.getBoundingClientRect();
    return r.left < -1 || r.right > document.documentElement.clientWidth + 1; })
  .map((e) => e.textContent.slice(0, 60))"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture(autouse=True)
def quiet(page):
    page.said.clear()
    page.requests.clear()
    yield
    assert page.said == []


def several(tmp_path):
    def broken(one):
        if one["iteration"] > 60:
            one |= {"policy/accepted": 0.0, "environment/nonfinite": 3}
    return [write_run(tmp_path / f"kl-{kl}-seed-{seed}", seed=seed, change=broken,
                      hyperparameters={"max_kl": kl}) for kl in (0.01, 0.02) for seed in (0, 1)]


@pytest.mark.parametrize(("width", "scheme"), [
    (1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"), (320, "light"),
])
def test_all_is_drawn_inside_the_page_and_nothing_is_asked_of_a_network(
    page, tmp_path, width, scheme
):
    output = jtrust.report(several(tmp_path), tmp_path / "r.html")
    page.show(width, 900, scheme)
    page.open(output.as_uri())
    drawn = page.value(DRAWN)
    assert len(drawn) == int(page.value("document.documentElement.dataset.drawn")) >= 15
    assert min(drawn) > 500
    assert page.requests == [output.as_uri()]
    assert page.value(OUTSIDE) == []
    assert page.value("document.documentElement.scrollWidth") <= width
    dark = page.value("getComputedStyle(document.body).backgroundColor") == "rgb(17, 21, 28)"
    assert dark == (scheme == "dark")
    assert page.picture().startswith(b"\x89PNG")


def test_a_setting_stands_out_while_it_is_pressed(page, tmp_path):
    page.show(1280, 900, "light")
    page.open(jtrust.report(several(tmp_path), tmp_path / "r.html").as_uri())
    before = page.value(DRAWN)
    image = "document.querySelector('#chart-policy-kl canvas').toDataURL()"
    picture = page.value(image)
    page.value("document.querySelector('.chip').click()")
    page.wait_for(f"{image} !== {json.dumps(picture)}")
    assert page.value("document.querySelector('.chip').getAttribute('aria-pressed')") == "true"
    page.value("document.querySelector('.chip').click()")
    page.wait_for(f"{image} === {json.dumps(picture)}")
    assert page.value(DRAWN) == before


def test_a_page_that_is_watched_follows(page, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    page.show(1280, 900, "light")
    with serving(run) as server:
        page.open(server.url)
        assert page.value("document.querySelectorAll('figure').length") == 0
        write_run(run, rows=5)
        page.wait_for("document.querySelectorAll('.chart canvas').length > 10")
        image = "document.querySelector('#chart-policy-kl canvas').toDataURL()"
        before = json.dumps(page.value(image))
        append(run, 6, 8)
        page.wait_for("document.getElementById('runs').textContent.includes('32,768')")
        page.wait_for(f"{image} !== {before}")
        append(run, 9, 9, **{"my/metric": 1.0})
        page.wait_for("!!document.querySelector('#chart-other-0 canvas')")
        assert min(page.value(DRAWN)) > 200
        assert all(address.startswith(server.url) for address in page.requests)
        assert row(9)["step"] == 36864
        page.call("Page.navigate", url="about:blank")
