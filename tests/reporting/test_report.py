"""The page as a file: what is in it, and that the numbers are those of metrics.jsonl."""

import json
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import vl_convert

import jtrust
from jtrust.reporting.content import make_content
from jtrust.reporting.panels import panels_for
from jtrust.reporting.sources import Sources
from tests.reporting.made import write_run

NASTY = "</script><img src=x onerror=alert(1)>\x1b[2J{{content}}{{css}}"


class Page(HTMLParser):
    """What a browser would make of a page: elements, attributes, and the numbers in it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links = [], [], []
        self._inside, self.content = None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        given = dict(attributes)
        self._inside = given.get("id") if tag == "script" else tag
        if "id" in given:
            assert given["id"] not in self.ids
            self.ids.append(given["id"])
        self.links += [v for k, v in attributes if k in ("src", "href", "action", "srcset")]

    def handle_data(self, data):
        if self._inside == "content" and self.content is None:
            self.content = json.loads(data)


def page_of(paths, output):
    jtrust.report(paths, output)
    return Page(output.read_text("utf-8"))


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def chart(content, place):
    (found,) = [c for c in content["charts"] if c["id"] == place]
    return found


def test_its_numbers_are_those_of_the_metrics(run_dir, tmp_path):
    page = page_of(run_dir, tmp_path / "r.html")
    rows, content = rows_of(run_dir), page.content
    for place, metric in (("policy-kl", "policy/kl"), ("episode-return", "episode/return"),
                          ("policy-entropy", "policy/entropy"), ("value-loss", "value/loss")):
        (curve,) = chart(content, place)["curves"]
        assert content["axes"][curve["x"]] == [r["step"] for r in rows]
        assert curve["y"] == [float(f"{r[metric]:.5g}") for r in rows]
    (kl,) = chart(content, "policy-kl")["curves"]
    assert kl["ref"] == [0.01] * len(rows)
    (ratio,) = chart(content, "kl-ratio")["curves"]
    assert ratio["y"] == pytest.approx([r["policy/kl"] / 0.009 for r in rows], rel=1e-4)


def test_nothing_in_it_leads_to_a_network_and_every_place_is_there(run_dir, tmp_path):
    text = jtrust.report(run_dir, tmp_path / "r.html").read_text("utf-8")
    page = Page(text)
    assert all(link.startswith("data:") for link in page.links)
    assert "connect-src 'none'" in text and "default-src 'none'" in text
    assert not re.search(r"@import|url\(", text[: text.index("</style>")])
    assert {f"chart-{c['id']}" for c in page.content["charts"]} <= set(page.ids)
    places = set(re.findall(r'getElementById\("(\w+)"\)', text)) | set(page.content["fragments"])
    assert places <= set(page.ids)
    assert len(page.content["charts"]) >= 15


def test_thinned_curves_keep_their_outliers(tmp_path):
    def spike(one):
        if one["iteration"] == 1234:
            one |= {"policy/kl": 0.9, "policy/entropy": -50.0}
    run = write_run(tmp_path / "run", rows=2500, change=spike)
    content = make_content(Sources([run]))
    (kl,), (entropy,) = (
        chart(content, place)["curves"] for place in ("policy-kl", "policy-entropy")
    )
    assert len(kl["y"]) <= 300 and max(kl["hi"]) == 0.9 and min(entropy["lo"]) == -50
    at = content["axes"][kl["x"]][kl["hi"].index(0.9)]
    assert abs(at - 4096 * 1234) <= 4096 * 2500 / 300


def test_seeds_are_one_setting_and_other_settings_are_named_by_what_differs(tmp_path):
    runs = [
        write_run(tmp_path / f"{kl}-{seed}", seed=seed, hyperparameters={"max_kl": kl},
                  wandb_id=f"x{seed}", total_steps=10**6 + seed,
                  change=lambda one, more=seed: one.update(
                      {"episode/return": one["episode/return"] + more}))
        for kl in (0.01, 0.02) for seed in (0, 1, 5)
    ]
    content = make_content(Sources(runs))
    assert content["settings"] == ["max_kl 0.01", "max_kl 0.02"]
    curves = chart(content, "episode-return")["curves"]
    assert [c["s"] for c in curves] == [0, 1]
    # Of three seeds the interquartile mean is the mean.
    assert curves[0]["y"] == pytest.approx([10 * i + 2 for i in range(1, 101)])
    assert all(lo <= y <= hi for lo, y, hi in zip(
        curves[0]["lo"], curves[0]["y"], curves[0]["hi"], strict=True))
    assert "max_kl" in content["fragments"]["settings"]
    common = content["fragments"]["configuration"]
    assert "num_envs" in common and "max_kl" not in common and ">seed<" not in common


def test_seeds_that_ended_early_leave_the_others(tmp_path):
    runs = [write_run(tmp_path / str(n), rows=n, seed=n, change=lambda one, n=n: one.update(
        {"episode/return": float(n)})) for n in (50, 100)]
    (curve,) = chart(make_content(Sources(runs)), "episode-return")["curves"]
    assert curve["y"] == [75] * 50 + [100] * 50
    assert curve["lo"] == [50] * 50 + [None] * 50


def test_a_sweep_is_grouped_by_its_settings(tmp_path):
    members = [{"name": f"m{i}", "seed": i % 2, "settings": {"max_kl": 0.01 * (1 + i // 2)}}
               for i in range(4)]
    for member in members[:3]:  # the last has not begun
        write_run(tmp_path / member["name"], seed=member["seed"], hyperparameters={"max_kl": 9})
    (tmp_path / "no-member").mkdir()
    (tmp_path / "sweep.json").write_text(json.dumps({"members": members}))
    content = make_content(Sources([tmp_path]))
    assert content["settings"] == ["max_kl 0.01", "max_kl 0.02"]
    assert "m3: no iteration yet" not in content["fragments"]["notes"]
    assert "m3" in content["fragments"]["notes"] and "m3" in content["fragments"]["runs"]


@pytest.mark.parametrize("text", [
    "no json", "[]", "{}", '{"members": 3}', '{"members": [3]}', '{"members": [{"name": 3}]}',
    '{"members": [{"name": "../outside"}, {"name": "link"}, {"name": "a/b"}, {"name": "\\u0000"}]}',
])
def test_a_sweep_that_says_nonsense_is_told_on_the_page(tmp_path, text):
    outside = write_run(tmp_path / "outside", env="brax/secret")
    sweep = tmp_path / "sweep"
    write_run(sweep / "a")
    (sweep / "link").symlink_to(outside)
    (sweep / "sweep.json").write_text(text)
    content = make_content(Sources([sweep], waiting=True))
    assert "sweep.json" in content["fragments"]["notes"] and "secret" not in json.dumps(content)


def test_runs_of_different_environments_are_shown_and_it_is_said(tmp_path):
    runs = [write_run(tmp_path / name, env=f"brax/{name}") for name in ("ant", "hopper")]
    notes = make_content(Sources(runs))["fragments"]["notes"]
    assert "different environments (brax/ant, brax/hopper)" in notes


def test_older_runs_and_metrics_of_ones_own_are_drawn(tmp_path):
    def change(one):
        del one["policy/kl_mean"], one["policy/kl_limit"]
        one |= {"my/metric": 3.0, "evaluation/return": 5.0 if one["iteration"] % 10 == 0 else None}
    content = make_content(Sources([write_run(tmp_path / "run", change=change)]))
    ids = [c["id"] for c in content["charts"]]
    assert "policy-kl_mean" not in ids and "other-0" in ids
    (evaluation,) = chart(content, "evaluation-return")["curves"]
    assert content["axes"][evaluation["x"]] == [40960 * i for i in range(1, 11)]
    (kl,) = chart(content, "policy-kl")["curves"]
    assert kl["ref"] == [0.01] * 100  # of the configuration


def test_time_of_a_resumed_run_goes_on(tmp_path):
    def change(one):
        one["time/seconds"] = 0.5 * ((one["iteration"] - 1) % 50 + 1)
    content = make_content(Sources([write_run(tmp_path / "run", change=change)]))
    (curve,) = chart(content, "return-seconds")["curves"]
    # Two sessions of 50 rows, each from its first one on: two rows are at the same time.
    assert content["axes"][curve["x"]] == [0.5 * i for i in range(99)]
    assert curve["y"][48:51] == [490, 505, 520] and curve["hi"][49] == 510


def test_every_metric_of_the_documentation_has_a_panel():
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text()
    keys = [key for line in text.splitlines() if line.startswith("| `")
            for key in re.findall(r"`([a-z]+/\w+)`", line.split(" | ")[0])]
    # Costs are named by environments, and only some algorithms recover.
    told = ("cost/NAME", "policy/recovery")
    shown = {metric for panel in panels_for(told) for metric in panel.metrics}
    assert set(keys) - shown <= {"episode/count", "time/seconds"} and len(keys) > 25


def test_vega_lite_takes_every_chart_as_it_is(tmp_path):
    def change(one):
        one |= {name: 0.5 for panel in panels_for(()) for name in panel.metrics if name not in one}
        one |= {"environment/nonfinite": 1, "value/skipped": 1.0, "policy/accepted": 0.0}
    runs = [write_run(tmp_path / str(i), seed=i, change=change) for i in range(2)]
    content = make_content(Sources(runs))
    assert len(content["charts"]) >= 25
    for found in content["charts"]:
        vega = vl_convert.vegalite_to_vega(found["spec"] | {"width": 400}, vl_version="6.4")
        assert any(data["name"] == "rows" for data in vega["data"])
    rows = [{"x": 1, "y": 2.0, "lo": 1.0, "hi": 3.0, "ref": 1.5, "s": content["settings"][0]}]
    spec = chart(content, "policy-kl")["spec"] | {"width": 400, "data": {"name": "rows",
                                                                        "values": rows}}
    assert "KL (nats)" in vl_convert.vegalite_to_svg(spec, vl_version="6.4")


def test_what_a_run_names_is_text_and_nothing_else(tmp_path):
    run = write_run(tmp_path / "run<b>", env=NASTY, algorithm=NASTY,
                    change=lambda one: one.update({NASTY: 1.0}))
    (run / "render<i>.png").write_bytes(b"\x89PNG")
    page = page_of(run, tmp_path / "r.html")
    assert page.tags.count("img") == 1 and page.tags.count("script") == 3
    heading = re.search("<h1.*?</h1>", (tmp_path / "r.html").read_text(), re.DOTALL)[0]
    assert "{{content}}{{css}} · " in heading and len(heading) < 300
    assert "b" not in page.tags and "i" in page.tags and page.content["title"].startswith("<")


def test_the_newest_render_is_inside_or_led_to(tmp_path):
    run = write_run(tmp_path / "run")
    for i, name in enumerate(("render.gif", "render-2.png", "render.mp4")):
        (run / name).write_bytes(b"x" * 10)
        os.utime(run / name, (i, i))
    (run / "render.png").symlink_to("/etc/passwd")
    page = page_of(run, tmp_path / "r.html")
    assert page.tags.count("video") == 1 and "data:video/mp4;base64,eHh4eHh4eHh4eA==" in page.links
    (run / "render.mp4").write_bytes(b"x" * 2_000_000)
    page = page_of(run, tmp_path / "r.html")
    assert "video" not in page.tags
    assert [x for x in page.links if x.startswith("file:")] == [f"file://{run}/render.mp4"]


def test_a_profile_of_the_same_training_is_drawn(tmp_path):
    run = write_run(tmp_path / "run")
    told = {"env": "brax/ant", "algorithm": "trpo", "num_envs": 64, "device": "cpu", "phases": [
        {"name": "physics", "seconds": 0.25, "share": 0.75, "measured": "timed alone"},
        {"name": "value fit", "seconds": 0.05, "share": 0.25, "measured": "timed alone"}]}
    (run / "profile").mkdir()
    place = run / "profile" / "profile.json"
    place.write_text(json.dumps(told))
    rows = chart(make_content(Sources([run])), "profile-0")["rows"]
    assert rows == [{"x": 250.0, "y": "physics", "share": 0.75},
                    {"x": 50.0, "y": "value fit", "share": 0.25}]
    for bad in (told | {"num_envs": 128}, told | {"phases": [{"name": 3}]}, told | {"phases": []},
                told | {"phases": [told["phases"][0] | {"seconds": math.nan}]}, [], 3):
        place.write_text(json.dumps(bad))
        ids = [c["id"] for c in make_content(Sources([run]))["charts"]]
        assert "profile-0" not in ids


def test_importing_jtrust_imports_none_of_it():
    code = ("import sys, jtrust; assert 'vl_convert' not in sys.modules; "
            "assert 'jtrust.reporting' not in sys.modules; print(jtrust.report.__name__)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "report\n"


def test_a_page_is_the_same_when_it_is_made_again(tmp_path):
    runs = [write_run(tmp_path / str(i), seed=i, change=lambda one, i=i: one.update(
        {"episode/return": float(np.random.default_rng([i, one["iteration"]]).normal())}))
        for i in range(5)]
    assert make_content(Sources(runs)) == make_content(Sources(runs))
