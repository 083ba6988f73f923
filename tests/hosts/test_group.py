"""What processes agree on, with a dictionary in place of JAX's key-value store."""

import types

import jax
import pytest

from jtrust import checks
from jtrust.hosts import group, stopping
from jtrust.hosts.group import Hosts, ToldElsewhere
from jtrust.runs.directory import SharedDirectory
from jtrust.runs.signals import StopRequest
from jtrust.training import mesh

AHEAD = 2


class Store:
    """Keys and values, as JAX's runtime keeps them."""

    def __init__(self):
        self.kept = {}

    def key_value_set(self, key, value):
        assert key not in self.kept, f"{key} was set before"
        self.kept[key] = value

    def key_value_delete(self, key):
        del self.kept[key]

    def key_value_dir_get(self, prefix):
        return [(k, v) for k, v in self.kept.items() if k.startswith(prefix)]

    def blocking_key_value_get(self, key, milliseconds):
        return self.kept[key]


@pytest.fixture
def store(monkeypatch):
    store = Store()
    for module in (group, stopping):
        monkeypatch.setattr(module, "key_value_store", lambda: store)
    monkeypatch.setattr(group, "_USED", group.collections.Counter())
    return store


def two(monkeypatch):
    """Stopping of two processes of one run, and their requests."""
    made = []
    for i in range(2):
        # Each process counts its own.
        monkeypatch.setattr(group, "_USED", group.collections.Counter())
        request = StopRequest()
        made.append((stopping.Together(Hosts(i, 2), request, AHEAD), request))
    return made


@pytest.mark.parametrize("asker", [0, 1])
@pytest.mark.parametrize("lead", [-AHEAD, 0, AHEAD])
def test_both_stop_behind_the_same_iteration(store, monkeypatch, asker, lead):
    (first, a), (second, b) = two(monkeypatch)
    dispatched = [10, 10 + lead]  # neither can be further ahead of the other
    (a, b)[asker].number = 15
    assert (first, second)[asker].goes_on(dispatched[asker])
    ends = []
    for together, iteration in ((first, dispatched[0]), (second, dispatched[1])):
        while together.goes_on(iteration):
            iteration += 1
        ends.append(iteration)
    assert ends[0] == ends[1] and a.number == b.number == 15


def test_a_sink_ends_all_without_a_signal(store, monkeypatch):
    (first, a), (second, b) = two(monkeypatch)
    second.end()
    assert second.goes_on(5) and first.goes_on(5)
    assert not first.goes_on(5 + AHEAD + 1) and not second.goes_on(5 + AHEAD + 1)
    assert a.number is b.number is None


def test_the_first_signal_of_a_process_is_only_noted_though_others_were_first():
    with StopRequest() as request:
        request.number = 15  # agreed on
        request._note(15, None)
        assert request.number == 15  # and this process still lives


def test_keys_do_not_pile_up(store):
    hosts = Hosts(1, 2)
    for use in range(1, 6):
        store.kept[f"jtrust/x/{use}/0"] = "7"
        assert hosts.everyone("x", use) == [7, use]
    assert [k for k in store.kept if k.endswith("/1")] == ["jtrust/x/4/1", "jtrust/x/5/1"]


def test_a_failure_elsewhere_is_told_and_ones_own_raised(store):
    store.kept["jtrust/x/1/0"] = '[null, ["--max-kl 3: too much", 2]]'
    with pytest.raises(ToldElsewhere, match="process 0: --max-kl 3") as error:
        Hosts(1, 2).all_well("x", lambda: 1)
    assert error.value.status == 2
    store.kept["jtrust/x/2/0"] = "[1, null]"
    with pytest.raises(checks.BadArgument, match="a=1"):
        Hosts(1, 2).all_well("x", lambda: (_ for _ in ()).throw(checks.BadArgument("a", 1, "no")))


def test_a_difference_is_named_where_it_lies(store):
    store.kept["jtrust/run/1/0"] = '{"seed": 0, "hyperparameters": {"max_kl": 0.01, "parts": 1}}'
    store.kept["jtrust/run-compared/1/0"] = "[null, null]"
    with pytest.raises(checks.BadArgument) as error:
        Hosts(1, 2).same("run", {"seed": 0, "hyperparameters": {"max_kl": 0.02, "parts": 1}})
    assert error.value.as_option() == (
        "--max-kl 0.02: process 0 of 2 has 0.01, process 1 must have the same"
    )


def devices(*processes):
    return [types.SimpleNamespace(process_index=p, platform="cpu", id=i)
            for i, p in enumerate(processes)]


def test_devices_are_of_all_processes_as_many_of_each(monkeypatch):
    found = devices(0, 0, 0, 1, 1)
    monkeypatch.setattr(jax, "devices", lambda: found)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert [d.id for d in mesh.find_devices(4)] == [0, 1, 3, 4]
    for count in (1, 3, 5):
        with pytest.raises(checks.BadArgument, match="as many of each of the 2 processes"):
            mesh.find_devices(count)
    assert mesh.find_devices(found[3:]) == found[3:]  # its own alone
    with pytest.raises(checks.BadArgument, match="of all 2 processes, or of this one alone"):
        mesh.find_devices(found[:2])


def test_a_directory_of_which_another_machine_sees_none(tmp_path, monkeypatch):
    monkeypatch.setattr("jtrust.runs.directory._SEEN_WITHIN", 0.3)
    directory = SharedDirectory(tmp_path / "a", tmp_path / "b")
    with pytest.raises(checks.BadArgument, match="file system that all processes share"):
        directory.check_seen("process 1 on here")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "lock").write_text("process 1 on here")
    directory.check_seen("process 1 on here")
    (tmp_path / "a").rename(tmp_path / "b")
    directory.settle()
    assert directory.path == tmp_path / "b"
