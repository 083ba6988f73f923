"""Where a Chromium is, if there is one."""

import shutil

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium():
    """Its path, or None."""
    return next(filter(None, map(shutil.which, _NAMES)), None)
