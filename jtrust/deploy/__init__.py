"""What becomes of a trained policy: pictures of what it does."""

from jtrust.deploy.render import render, render_policy

__all__ = ["render", "render_policy"]
