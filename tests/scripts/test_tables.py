"""Tables of learning curves, from runs small enough to work out by hand."""

import json

from scripts.learning import tables


def keep(folder, task, arm, *curves):
    runs = {
        str(seed): {"evaluations": {"step": steps, "seconds": seconds, "return": returns}}
        for seed, (steps, seconds, returns) in enumerate(curves)
    }
    name = arm.replace(":", "--")
    (folder / f"{task}--{name}.json").write_text(
        json.dumps({"task": task, "arm": arm, "runs": runs})
    )


def rows(text):
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()]
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[2:]}


def test_arms_are_compared_where_the_shortest_ended(tmp_path):
    ours = ([100, 200], [10.0, 20.0], [0.0, 80.0])
    keep(tmp_path, "hopper", "trpo", ours, ours)
    peer = ([150], [15.0], [50.0])
    keep(tmp_path, "hopper", "brax-ppo", peer, peer, peer)
    data = tables.load_all(tmp_path)
    for axis, name, where in (("seconds", "seconds", "15"), ("step", "steps", "150")):
        row = rows(tables.table(data, axis))["hopper"]
        assert row[name] == where
        assert row["trpo"] == "40 [40, 40] (2)"  # half way between 0 and 80
        assert row["brax-ppo"] == "50 [50, 50] (3)"
        assert row["better than the peer"] == "trpo 0.00"


def test_a_peer_without_an_update_stands_at_its_untrained_policy_and_at_no_step(tmp_path):
    keep(tmp_path, "CheetahRun", "trpo", ([100, 200], [10.0, 20.0], [0.0, 80.0]))
    keep(tmp_path, "CheetahRun", "brax-ppo", ([0, 0], [4.0, 300.0], [7.0, 7.0]))
    data = tables.load_all(tmp_path)
    timed = rows(tables.table(data, "seconds"))["CheetahRun"]
    assert (timed["seconds"], timed["trpo"], timed["brax-ppo"]) == (
        "20", "80 [80, 80] (1)", "7 [7, 7] (1)"
    )
    stepped = rows(tables.table(data, "step"))["CheetahRun"]
    assert (stepped["steps"], stepped["trpo"], stepped["brax-ppo"]) == (
        "200", "80 [80, 80] (1)", "no update yet"
    )
    assert tables.aggregate(data, "step") == ""


def test_settings_of_their_own_are_studies_beside_the_defaults(tmp_path):
    keep(tmp_path, "hopper", "trpo", ([100], [10.0], [40.0]), ([100], [10.0], [60.0]))
    keep(tmp_path, "hopper", "trpo:max_kl=0.02", ([100], [10.0], [55.0]))
    data = tables.load_all(tmp_path)
    assert set(tables.without_studies(data)["hopper"]) == {"trpo"}
    row = rows("\n".join(tables.studies(data)))["hopper"]
    assert (row["setting"], row["return"], row["defaults"]) == (
        "trpo:max_kl=0.02", "55 (1)", "50 (2)"
    )
    assert row["difference"] == "5 [-5, 15]"
    assert row["better than the defaults"] == "0.50"
