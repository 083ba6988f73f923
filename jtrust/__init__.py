"""jtrust: trust-region reinforcement learning, compiled end to end with JAX."""
