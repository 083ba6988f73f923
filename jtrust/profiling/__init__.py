"""Where the time of an iteration goes: `jtrust profile`."""

from jtrust.profiling.profile import Phase, Profile, profile
from jtrust.profiling.report import to_text

__all__ = ["Phase", "Profile", "profile", "to_text"]
