"""Several processes of one run, on one machine or many: what they agree on, and how.

`cluster` finds out who is to take part, `connecting` brings them together by JAX's distributed
runtime, `group` is how they talk on the host's side, `stopping` ends a run at the same iteration
everywhere, and `aborts` says in one line what JAX ends a process for.
"""
