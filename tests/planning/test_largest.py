"""The search for the largest number of environments, with programs of made-up sizes."""

import pytest

from jtrust.checks import BadArgument
from jtrust.planning.largest import MOST_PER_DEVICE, Measured, find_largest

pytestmark = pytest.mark.slow


def search(memory, usable, *, devices=1, start=64, refuse=lambda n: False):
    tried = []

    def measure(count):
        assert count not in tried and count % devices == 0
        tried.append(count)
        if refuse(count):
            raise BadArgument("minibatches", 7, "does not divide")
        return Measured(memory(count) <= usable, memory(count))

    found = find_largest(measure, devices, start, measure(start), usable)
    assert found.programs == len([n for n in tried if not refuse(n)])
    return found


@pytest.mark.parametrize("usable", [9_000, 70_000, 1_000_000, 77_777_777])
@pytest.mark.parametrize("start", [8, 64, 3000])
@pytest.mark.parametrize("constant", [0, 5_000])
def test_neighbours_were_tried_and_few_programs_compiled(usable, start, constant):
    found = search(lambda n: constant + 100 * n, usable, start=start)
    assert constant + 100 * found.fits <= usable < constant + 100 * found.exceeds
    assert found.exceeds <= 2 * found.fits or found.exceeds == start
    assert found.programs <= 5


def test_devices_share_the_environments():
    found = search(lambda n: n // 6, 1000, devices=6, start=6)
    assert (found.fits, found.exceeds) == (3072, 6144)


def test_nothing_fits():
    found = search(lambda n: 10**9 + n, 1000, devices=4, start=64)
    assert (found.fits, found.exceeds) == (None, 4)


def test_everything_fits():
    found = search(lambda n: 10, 1000, devices=2)
    assert (found.fits, found.exceeds) == (2 * MOST_PER_DEVICE, None)


def test_sizes_that_xla_refuses_without_a_number():
    found = find_largest(
        lambda n: Measured(n <= 2048, 10 * n if n <= 2048 else None), 1, 64,
        Measured(True, 640), 10**9,
    )
    assert (found.fits, found.exceeds) == (2048, 4096)


def test_numbers_that_will_not_do_end_the_search():
    found = search(lambda n: n, 10**9, start=64, refuse=lambda n: n > 256)
    assert (found.fits, found.exceeds) == (256, None)
