"""Each rule with its fault planted in a run that is well otherwise."""

from pathlib import Path

import pytest

from jtrust.reporting.rules import RULES, findings, to_markdown
from jtrust.reporting.sources import Sources
from tests.reporting.made import row, write_run

DOCS = Path(__file__).parents[2] / "docs/do/report.md"


def told(path, **made):
    """{rule: sentence} of a run that is made so."""
    write_run(path, **made)
    return {f.rule.name: f.sentence for f in findings(Sources([path]).runs)}


def put(**values):
    """Sets metrics, whose / are written __, from iteration 21 on."""
    def change(one):
        if one["iteration"] > 20:
            one |= {name.replace("__", "/"): value for name, value in values.items()}
    return change


def last_rows_return(value):
    return lambda one: one.update({"episode/return": value}) if one["iteration"] > 60 else None


def once(**values):
    def change(one):
        if one["iteration"] == 50:
            one |= {name.replace("__", "/"): value for name, value in values.items()}
    return change


def never(one):
    one["episode/return"] = 7.0 + 0.001 * one["iteration"]


DISCRETE = {"kind": "discrete", "n": 4}

PLANTED = [
    ("Return never moved", dict(change=never), ["7.006", "7.095"]),
    ("Return fell", dict(change=last_rows_return(20.0)), ["555", "20 in the last"]),
    ("Rewards tell nothing", dict(change=put(policy__kl_limit=0.0, policy__kl=0.0)), ["80%"]),
    ("Updates refused", dict(change=put(policy__accepted=0.0)), ["50 of the last 50"]),
    ("Steps cut short", dict(change=put(policy__step_scale=0.03)), ["0.03", "last 50"]),
    ("Trust region exceeded", dict(change=once(policy__kl=0.03)), ["iteration 50", "0.03 of 0.01"]),
    ("Quadratic model is off", dict(change=put(policy__kl_predicted=0.0009)), ["times"]),
    ("Deviation collapsed", dict(change=put(policy__entropy=-3.1)),
     ["0.0514", "0.658", "floor is 0.05"]),
    ("Deviation collapsed", dict(change=put(policy__entropy=0.001), action=DISCRETE),
     ["0.001 nats"]),
    ("Drift of the normaliser", dict(change=once(observation__drift_kl=0.002)),
     ["iteration 50", "20% of the limit"]),
    ("Values explain nothing", dict(change=put(value__explained_variance=0.02)), ["0.02"]),
    ("Simulator broke", dict(change=once(environment__nonfinite=12)), ["12 steps"]),
    ("Simulator out of room", dict(change=once(environment__overflow=9)), ["9 steps"]),
    ("Steps that were not finite", dict(change=once(value__skipped=2.0, observation__skipped=1.0)),
     ["2 gradient steps", "1 batches"]),
    ("Slower than before",
     dict(change=lambda one: one.update({"time/steps_per_second": 900.0})
          if one["iteration"] > 85 else None), ["900", "8,192"]),
]


def test_a_run_that_is_well_is_left_alone(tmp_path):
    assert told(tmp_path / "run") == {}
    assert told(tmp_path / "short", rows=3) == {}


@pytest.mark.parametrize(("name", "made", "words"), PLANTED, ids=[p[0] for p in PLANTED])
def test_a_planted_fault_is_told_with_its_numbers_and_nothing_else_is(tmp_path, name, made, words):
    found = told(tmp_path / "run", **made)
    assert list(found) == [name]
    for word in words:
        assert word in found[name]


def test_each_rule_has_its_fault_planted():
    assert {name for name, *_ in PLANTED} == {rule.name for rule in RULES}


@pytest.mark.parametrize(("name", "made"), [
    # Just on this side of the thresholds.
    ("Updates refused", dict(change=lambda one: one.update(
        {"policy/accepted": float(one["iteration"] % 8 == 0)}))),
    ("Steps cut short", dict(change=put(policy__step_scale=0.1))),
    ("Trust region exceeded", dict(change=once(policy__kl=0.01009))),
    ("Trust region exceeded", dict(change=once(policy__kl=0.03, policy__accepted=0.0))),
    ("Deviation collapsed", dict(change=put(policy__entropy=-2.95))),
    ("Drift of the normaliser", dict(change=once(observation__drift_kl=0.00099))),
    ("Values explain nothing", dict(change=put(value__explained_variance=0.11))),
    ("Return fell", dict(change=last_rows_return(320.0))),
])
def test_a_threshold_is_where_it_says(tmp_path, name, made):
    assert name not in told(tmp_path / "run", **made)


def test_drift_of_the_first_iteration_is_no_fault(tmp_path):
    first = lambda one: one.update({"observation/drift_kl": 1.0}) if one["step"] == 4096 else None  # noqa: E731
    assert told(tmp_path / "run", change=first) == {}


def test_a_run_without_configuration_or_limits_is_judged_by_what_there_is(tmp_path):
    def older(one):
        for name in ("policy/kl_limit", "policy/kl_mean", "environment/overflow"):
            del one[name]
    assert told(tmp_path / "run", change=older) == {}
    assert told(tmp_path / "bare", change=older, action=None, network="x", hyperparameters=3) == {}
    assert row(1)["iteration"] == 1


def test_the_documentation_lists_the_rules_of_the_code():
    assert to_markdown() in DOCS.read_text()
