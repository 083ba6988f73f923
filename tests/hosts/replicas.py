"""Trains 200 iterations as one of two processes, and compares what every device should hold alike.

    python -m tests.hosts.replicas FILE INDEX     FILE: where the first says its port
"""

import sys
import time
from pathlib import Path

import jax
import numpy as np

from scripts.launch.local import free_port
from tests.hosts.world import Line

if __name__ == "__main__":
    place, index = Path(sys.argv[1]), int(sys.argv[2])
    if index == 0:
        place.with_suffix(".tmp").write_text(str(free_port()))
        place.with_suffix(".tmp").rename(place)
    while not place.exists():
        time.sleep(0.05)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{place.read_text()}", num_processes=2, process_id=index)

    import jtrust

    result = jtrust.train(
        Line(), jtrust.TRPO(), num_envs=8, unroll_length=8, total_steps=200 * 64,
        network=jtrust.NetworkConfig(policy_layers=(8,), value_layers=(8,)),
    )
    state, count = result.state, 0
    assert int(state.iteration) == 200
    for field in ("policy", "value", "policy_optimizer", "value_optimizer",
                  "observation_statistics", "target_statistics", "last_episodes"):
        for leaf in jax.tree.leaves(getattr(state, field)):
            mine = [np.asarray(shard.data) for shard in leaf.addressable_shards]
            # What process 0 has, by a program that adds zeros of the other.
            for other in mine[1:]:
                np.testing.assert_array_equal(mine[0], other)
            everyone = jtrust.hosts.group.Hosts(index, 2).everyone("leaf", mine[0].tolist())
            assert everyone[0] == everyone[1], field
            count += 1
    print(f"{count} arrays are alike")
