"""The table of numbers of environments, from runs small enough to work out by hand."""

from scripts.learning import batch_sizes, tables
from tests.scripts.test_tables import keep

STEPS = [0, 1_000_000, 2_000_000, 4_000_000]


def curve(*returns):
    return STEPS, [0.0, 1.0, 2.0, 4.0], list(returns)


def test_environments_stand_beside_each_other_at_equal_steps_and_at_multiples(tmp_path):
    here, defaults = tmp_path / "here", tmp_path / "defaults"
    here.mkdir(), defaults.mkdir()
    keep(here, "hopper", "trpo:num_envs=4096", curve(0.0, 10.0, 20.0, 40.0))
    keep(defaults, "hopper", "trpo", curve(0.0, 70.0, 80.0, 90.0), curve(0.0, 50.0, 60.0, 70.0))
    keep(defaults, "hopper", "trpo:max_kl=1.0", curve(9.0, 9.0, 9.0, 9.0))
    keep(defaults, "hopper", "brax-ppo", ([0, 2_000_000], [0.0, 2.0], [0.0, 30.0]))
    keep(here, "hopper", "trpo:num_envs=4096,parts=2", curve(0.0, 1.0, 2.0, 3.0))
    text = batch_sizes.as_markdown(tables.load_all(here), tables.load_all(defaults))
    assert "| steps | trpo, 64 | trpo, 4096 | brax-ppo |" in text and "max_kl" not in text
    assert "| 1 M | 60 [50, 70] (2) | 10 (1) | 15 (1) |" in text
    assert "| 4 M | 80 [70, 90] (2) | 40 (1) | - |" in text and "| 5 M" not in text
    # A quarter of the steps of 4096 is where 64 are read.
    assert "4096 environments after 4.0 million steps 40 (1); 64 after 1.0 million 60" in text
    # Normalised from 0 to 1500: 64 after 1 million, 50 and 70, beside 40 after four times that.
    assert "| trpo, 4096 at 4 times the steps | 0.04 | 0.03 | -0.01 | 1 |" in text
    assert "| trpo:num_envs=4096,parts=2 | 4.0 | 3 (1) | 40 (1) |" in text
