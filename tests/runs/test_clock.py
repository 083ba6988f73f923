"""Rates of iterations whose metrics are read late, several in a row."""

import pytest

from jtrust.runs import host_loop


def test_a_rate_is_over_readings_that_a_burst_cannot_shorten(monkeypatch):
    # Compilation, nine iterations of a second each, and three read at once behind them.
    times = [0.0, 40.0, *(41.0 + i for i in range(9)), 52.0, 52.0, 52.0]
    readings = iter(times)
    monkeypatch.setattr(host_loop.time, "perf_counter", lambda: next(readings))
    clock = host_loop.Clock(100)
    rates = [clock.read()["time/steps_per_second"] for _ in times[1:]]
    assert rates[0] == pytest.approx(100 / 40)  # the first alone holds compilation
    assert rates[1:10] == [pytest.approx(100.0)] * 9
    assert all(70 < rate <= 160 for rate in rates[10:])
