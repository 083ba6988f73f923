"""Tables of learning curves, from runs small enough to work out by hand."""

import json

from scripts.learning import studies, tables

# Tasks, returns that count as 0 and 1, and what a setting gains there.
SHARES = (("hopper", 0, 1500, 0.1), ("CheetahRun", 0, 900, 0.2), ("reacher", -400, -10, 0.3))


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
    # The 80 come later: by 15 s nobody has them, and halfway there in steps is 40.
    for axis, name, where, trpo in (
        ("seconds", "seconds", "15", "0 [0, 0] (2)"), ("step", "steps", "150", "40 [40, 40] (2)"),
    ):
        row = rows(tables.table(data, axis))["hopper"]
        assert row[name] == where
        assert row["trpo"] == trpo
        assert row["brax-ppo"] == "50 [50, 50] (3)"
        assert row["better than the peer"] == "trpo 0.00"


def test_what_was_not_evaluated_by_then_is_no_return(tmp_path):
    keep(tmp_path, "hopper", "trpo", ([100, 200], [10.0, 20.0], [0.0, 80.0]))
    keep(tmp_path, "hopper", "brax-ppo", ([50], [5.0], [50.0]))
    data = tables.load_all(tmp_path)
    row = rows(tables.table(data, "seconds"))["hopper"]
    assert (row["trpo"], row["better than the peer"]) == ("not yet", "")
    assert tables.aggregate(data, "seconds") == ""


def test_fewer_than_five_seeds_give_a_range_and_five_an_interval(tmp_path):
    for count, expected in ((3, "20 [10, 30] (3)"), (5, "30 [")):
        values = [10.0 * (i + 1) for i in range(count)]
        assert tables.summary("hopper", values).startswith(expected)
    low, high = tables.summary("hopper", values).split("[")[1].split("]")[0].split(", ")
    assert 10 < float(low) < 30 < float(high) < 50  # within the range


def test_an_arm_that_ended_before_the_steps_compared_is_marked(tmp_path):
    keep(tmp_path, "hopper", "trpo", ([100, 200], [10.0, 20.0], [0.0, 80.0]))
    keep(tmp_path, "hopper", "npg", ([0, 100], [0.0, 10.0], [3.0, 40.0]))
    row = rows(tables.table(tables.load_all(tmp_path), "step"))["hopper"]
    assert (row["steps"], row["trpo"], row["npg"]) == ("200", "80 (1)", "40 (1) ended early")


def test_a_peer_without_an_update_stands_at_its_untrained_policy_and_at_no_step(tmp_path):
    keep(tmp_path, "CheetahRun", "trpo", ([100, 200], [10.0, 20.0], [0.0, 80.0]))
    keep(tmp_path, "CheetahRun", "brax-ppo", ([0, 0], [4.0, 300.0], [7.0, 7.0]))
    data = tables.load_all(tmp_path)
    timed = rows(tables.table(data, "seconds"))["CheetahRun"]
    assert (timed["seconds"], timed["trpo"], timed["brax-ppo"]) == (
        "20", "80 (1)", "7 (1)"
    )
    stepped = rows(tables.table(data, "step"))["CheetahRun"]
    assert (stepped["steps"], stepped["trpo"], stepped["brax-ppo"]) == (
        "200", "80 (1)", "no update yet"
    )
    assert tables.aggregate(data, "step") == ""


def test_settings_of_their_own_are_studies_beside_the_defaults(tmp_path):
    keep(tmp_path, "hopper", "trpo", ([100], [10.0], [40.0]), ([100], [10.0], [60.0]))
    keep(tmp_path, "hopper", "trpo:max_kl=0.02", ([100], [10.0], [55.0]))
    data = tables.load_all(tmp_path)
    assert set(tables.without_studies(data)["hopper"]) == {"trpo"}
    row = rows("\n".join(studies.table(data)))["hopper"]
    assert (row["setting"], row["return"], row["defaults"]) == (
        "trpo:max_kl=0.02", "55 (1)", "50 [40, 60] (2)"
    )
    assert row["difference"] == "5"
    assert row["better than the defaults"] == "0.50"


def test_settings_tried_without_the_bonus_stand_beside_what_had_none_either(tmp_path):
    for arm, end in (("trpo", 40.0), ("trpo:entropy_cost=0.0", 10.0),
                     ("trpo:fold=False,entropy_cost=0.0", 7.0), ("trpo:fold=False", 5.0)):
        keep(tmp_path, "hopper", arm, ([100], [10.0], [end]))
    text = studies.table(tables.load_all(tmp_path))
    beside = {row.split(" | ")[1]: row.split(" | ")[4] for row in text[2:]}
    assert beside == {
        "trpo:entropy_cost=0.0": "40 (1)", "trpo:fold=False,entropy_cost=0.0": "10 (1)",
        "trpo:fold=False": "40 (1)",
    }


def test_a_study_that_ends_just_before_an_evaluation_of_the_defaults(tmp_path):
    """At step 98 the defaults are at 10 + 0.96 * 50, not still at the 10 that they had at 50."""
    keep(tmp_path, "hopper", "trpo", ([0, 50, 100], [0.0, 5.0, 10.0], [0.0, 10.0, 60.0]))
    keep(tmp_path, "hopper", "trpo:max_kl=0.02", ([0, 49, 98], [0.0, 5.0, 9.0], [0.0, 10.0, 58.0]))
    row = rows("\n".join(studies.table(tables.load_all(tmp_path))))["hopper"]
    assert (row["steps"], row["return"], row["defaults"], row["difference"]) == (
        "98", "58 (1)", "58 (1)", "0"
    )


def test_a_setting_is_judged_over_its_tasks(tmp_path):
    """Normalised differences of 0.1, 0.2 and 0.3: their mean and what Student's t makes of it."""
    for task, low, high, share in SHARES:
        keep(tmp_path, task, "trpo", ([100], [10.0], [low]))
        keep(tmp_path, task, "trpo:max_kl=0.02", ([100], [10.0], [low + share * (high - low)]))
    pooled = studies.table(tables.load_all(tmp_path))[-1]
    half = 4.302653 * 0.1 / 3**0.5
    assert pooled == (
        f"| trpo:max_kl=0.02 | 3 | 3 | +0.200 [{0.2 - half:+.3f}, {0.2 + half:+.3f}] | - |"
    )


def test_seeds_of_the_same_tasks_give_an_interval_of_their_own(tmp_path):
    """Only hopper's seeds differ, by 0.2 up and down, so the mean over three tasks by a third."""
    for task, low, high, share in SHARES:
        spread = (-0.2, -0.2, 0.0, 0.2, 0.2) if task == "hopper" else (0.0,) * 5
        keep(tmp_path, task, "trpo", *[([100], [10.0], [low])] * 5)
        keep(tmp_path, task, "trpo:max_kl=0.02", *[
            ([100], [10.0], [low + (share + more) * (high - low)]) for more in spread
        ])
    middle, over_seeds = studies.table(tables.load_all(tmp_path))[-1].split(" | ")[3:5]
    assert middle.startswith("+0.200")
    assert over_seeds == "[0.13, 0.27] |"


def test_many_seeds_of_the_defaults_show_the_worst_and_how_many_learned(tmp_path):
    ends = (999.0, 998.0, 940.0, 997.0, 951.0)
    keep(tmp_path, "CartpoleBalance", "npg", *[([0, 100], [0.0, 9.0], [300.0, x]) for x in ends])
    keep(tmp_path, "hopper", "npg", ([0, 100], [0.0, 9.0], [70.0, 800.0]))
    text = studies.as_markdown(tables.load_all(tmp_path), tmp_path / "none")
    found = rows(text[text.index("| task"):])
    row = found["CartpoleBalance"]
    assert (row["steps"], row["worst"], row["learned"]) == ("100", "940", "4 of 5")
    assert row["return"].endswith("(5)") and row["wanted"] == "950"
    assert (found["hopper"]["learned"], found["hopper"]["wanted"]) == ("-", "-")


def test_a_folder_of_settings_stands_beside_the_defaults_of_another(tmp_path):
    for name in ("defaults", "studies"):
        (tmp_path / name).mkdir()
    keep(tmp_path / "defaults", "hopper", "ppo", ([100], [10.0], [40.0]))
    keep(tmp_path / "studies", "hopper", "ppo:clip=0.1", ([100], [10.0], [55.0]))
    text = studies.as_markdown(tables.load_all(tmp_path / "studies"), tmp_path / "defaults")
    row = rows(text[text.index("| task"):].split("\n\n")[0])["hopper"]
    assert (row["return"], row["defaults"], row["difference"]) == ("55 (1)", "40 (1)", "15")
