"""`metrics.jsonl` read while it grows, against the file read as a whole."""

import json
import os

import numpy as np
import pytest

from jtrust.reporting.tail import LONGEST_LINE, MetricsTail
from tests.reporting.made import row


def lines(first, last, **more):
    return "".join(json.dumps(row(i, **more)) + "\n" for i in range(first, last + 1)).encode()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(lines(1, 5))
    return path


@pytest.fixture
def tail(path):
    tail = MetricsTail(path)
    assert tail.poll()
    return tail


def iterations(tail):
    return tail.column("iteration").tolist()


def test_columns_are_those_of_the_file(path, tail):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert set(tail.names) == set(rows[0])
    for name in rows[0]:
        assert tail.column(name).tolist() == [r[name] for r in rows]
    assert np.isnan(tail.column("no/such")).all() and len(tail.column("no/such")) == 5


def test_only_what_is_new_is_read_however_it_is_cut(path, tail):
    before = tail.bytes_read
    assert before == path.stat().st_size and not tail.poll()
    new = lines(6, 8)
    for i in range(0, len(new), 97):  # cut at places that are none
        with path.open("ab") as file:
            file.write(new[i:i + 97])
        tail.poll()
    assert iterations(tail) == list(range(1, 9)) and tail.unreadable == 0
    assert tail.bytes_read == before + len(new)


def test_a_run_that_is_resumed_cuts_the_file_back(path, tail):
    path.write_bytes(lines(1, 2))
    assert tail.poll() and iterations(tail) == [1, 2]
    with path.open("ab") as file:
        file.write(lines(3, 4, **{"policy/kl": 0.5}))
    tail.poll()
    assert iterations(tail) == [1, 2, 3, 4] and tail.column("policy/kl")[-1] == 0.5


def test_a_file_that_was_cut_and_has_grown_beyond_is_noticed(path, tail):
    size = path.stat().st_size
    os.truncate(path, len(lines(1, 2)))
    with path.open("ab") as file:
        file.write(lines(3, 9, **{"policy/kl": 0.25}))
    assert path.stat().st_size > size and tail.poll()
    assert iterations(tail) == list(range(1, 10))
    assert tail.column("policy/kl").tolist()[2:] == [0.25] * 7


def test_of_rows_that_come_twice_the_later_ones_count(path, tail):
    with path.open("ab") as file:
        file.write(lines(4, 6, **{"policy/kl": 0.5}))
    tail.poll()
    assert iterations(tail) == [1, 2, 3, 4, 5, 6]
    assert tail.column("policy/kl").tolist()[3:] == [0.5] * 3


@pytest.mark.parametrize("bad", [
    b"no json\n", b"[1]\n", b"{}\n", b"\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n",
    b"1" * 5000 + b"\n",
    b'{"iteration": "6", "step": 1}\n', b'{"iteration": true, "step": 1}\n',
    b'{"iteration": NaN, "step": 1}\n', b'{"step": 1}\n',
    b'{"iteration": 6, "step": 1' + b"0" * 400 + b"}\n",
])
def test_what_is_no_row_is_counted_and_left(path, tail, bad):
    with path.open("ab") as file:
        file.write(bad + lines(6, 6))
    tail.poll()
    assert iterations(tail) == [1, 2, 3, 4, 5, 6] and tail.unreadable == 1


def test_a_gigantic_line_is_left_without_being_kept(path, tail):
    with path.open("ab") as file:
        for _ in range(20):
            file.write(b"x" * LONGEST_LINE)
    tail.poll()
    assert len(tail._left) <= LONGEST_LINE and iterations(tail) == [1, 2, 3, 4, 5]
    with path.open("ab") as file:
        file.write(b"x\n" + lines(6, 7))
    tail.poll()
    assert iterations(tail) == [1, 2, 3, 4, 5, 6, 7] and tail.unreadable == 1


def test_values_that_are_no_numbers_are_missing(path, tail):
    with path.open("ab") as file:
        file.write(lines(6, 6, **{"policy/kl": None, "value/loss": "x", "new": 3}))
        file.write(b'{"iteration": 7, "step": 28672, "policy/kl": Infinity, "new": 1e999}\n')
    tail.poll()
    assert np.isnan(tail.column("policy/kl")[5:]).all() and np.isnan(tail.column("value/loss")[5])
    assert tail.column("new")[5] == 3 and np.isnan(np.delete(tail.column("new"), 5)).all()


def test_a_file_of_thousands_of_names_keeps_few(path):
    path.write_text(json.dumps({"iteration": 1, "step": 1} | {f"x{i}": i for i in range(10**5)}))
    with path.open("a") as file:
        file.write("\n")
    tail = MetricsTail(path)
    tail.poll()
    assert len(tail.names) <= 300


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_is_no_plain_file_is_not_opened(tmp_path, kind):
    path = tmp_path / "metrics.jsonl"
    if kind == "link":
        (tmp_path / "other").write_bytes(lines(1, 3))
        path.symlink_to(tmp_path / "other")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    tail = MetricsTail(path)
    assert tail.poll() and tail.rows == 0 and "metrics.jsonl cannot be read" in tail.problem


def test_a_directory_that_goes_leaves_what_was_read_and_may_come_again(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    path.parent.mkdir()
    tail = MetricsTail(path)
    tail.poll()
    assert tail.rows == 0 and tail.problem == ""  # not written yet
    path.write_bytes(lines(1, 3))
    assert tail.poll()
    path.unlink()
    path.parent.rmdir()
    assert tail.poll() and tail.rows == 3 and "gone" in tail.problem
    path.parent.mkdir()
    path.write_bytes(lines(1, 2))
    assert tail.poll() and tail.rows == 2 and tail.problem == ""
