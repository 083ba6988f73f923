"""Whether a run goes on: the same answer in all of its processes, at the same iteration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from jtrust.hosts.group import Hosts, key_value_store

if TYPE_CHECKING:
    from jtrust.runs.signals import StopRequest


class Stopping(Protocol):
    """Asked before each iteration is dispatched."""

    def goes_on(self, iteration: int) -> bool:
        """Whether another follows the `iteration` dispatched last."""

    def end(self) -> None:
        """Has the run end soon, as a sink asks for."""


class Alone:
    """A run of one process: it ends where it is asked to."""

    def __init__(self, request: StopRequest):
        self._request, self._ended = request, False

    def goes_on(self, iteration: int) -> bool:
        return self._request.number is None and not self._ended

    def end(self) -> None:
        self._ended = True


class Together:
    """A run of several: a signal at any of them ends all behind the same iteration.

    Who is asked to stop says so in the key-value store; the first process announces the last
    iteration, `ahead + 1` behind the one it has dispatched. Nobody can be past it: who dispatches
    iteration i has read the metrics of i - ahead - 1, and metrics are sums over all processes, so
    the first has dispatched that one, behind its announcement. JAX's own preemption service would
    do for SIGTERM alone: it takes that signal over from Python, and knows no SIGINT and no sink.

    Args:
      hosts: of the run.
      request: whether a signal came to this process; told the number that all agree on.
      ahead: how many iterations are dispatched before the metrics of the oldest are read.
    """

    def __init__(self, hosts: Hosts, request: StopRequest, ahead: int):
        self._hosts, self._request, self._ahead = hosts, request, ahead
        self._store = key_value_store()
        self._place = f"{hosts.new_place('stop')}/"
        self._ended = self._told = False
        self._last: int | None = None

    def goes_on(self, iteration: int) -> bool:
        asked = self._request.number if self._request.number is not None else (
            0 if self._ended else None
        )
        if asked is not None and not self._told:
            self._told = True
            self._store.key_value_set(f"{self._place}asked-{self._hosts.index}", str(asked))
        if self._last is None:
            self._look(iteration)
        return self._last is None or iteration < self._last

    def end(self) -> None:
        self._ended = True

    def _look(self, iteration: int) -> None:
        found = {
            key.rpartition("/")[2]: value
            for key, value in self._store.key_value_dir_get(self._place)
        }
        if "last" not in found and self._hosts.first and found:
            found["last"] = f"{iteration + self._ahead + 1} {max(map(int, found.values()))}"
            self._store.key_value_set(f"{self._place}last", found["last"])
        if "last" in found:
            self._last, number = map(int, found["last"].split())
            self._request.number = number or None
