"""What is done with runs before they are kept."""

import pytest

from scripts.learning_curves import count_compiling


def run(start, points, step=(100, 200)):
    return {
        "train": {"step": [10, 20], "seconds": [start, start + 1]},
        "evaluations": {"step": list(step), "seconds": list(points), "return": [1.0, 2.0]},
    }


def test_a_run_that_found_its_program_compiled_is_counted_the_time_all_the_same():
    first, later = run(30.0, [40.0, 60.0]), run(5.5, [15.0, 36.0])
    count_compiling(later, first)
    assert later["train"]["seconds"] == [30.0, 31.0]
    assert later["evaluations"]["seconds"] == [39.5, 60.5]
    assert later["counted_for_compiling"] == 24.5
    assert first == run(30.0, [40.0, 60.0])


def test_another_trainers_untrained_policy_stays_at_its_time():
    first = {"evaluations": {"step": [0, 100, 200], "seconds": [1.0, 50.0, 80.0]}}
    later = {"evaluations": {"step": [0, 100, 200], "seconds": [2.0, 20.0, 51.0]}}
    count_compiling(later, first)
    assert later["evaluations"]["seconds"] == pytest.approx([2.0, 50.0, 81.0])


def test_nothing_is_counted_where_time_ended_before_the_first_update():
    first = {"evaluations": {"step": [0, 100], "seconds": [1.0, 50.0]}}
    later = {"evaluations": {"step": [0, 0], "seconds": [2.0, 300.0]}}
    count_compiling(later, first)
    assert later == {"evaluations": {"step": [0, 0], "seconds": [2.0, 300.0]}}
