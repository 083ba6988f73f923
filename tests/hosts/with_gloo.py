"""`jtrust ...` in one process whose devices add as those of several processes do."""

import sys

import jax

from jtrust.cli import main
from scripts.launch.local import free_port

if __name__ == "__main__":
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{free_port()}", num_processes=1, process_id=0)
    sys.exit(main())
