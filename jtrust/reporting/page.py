"""The page as one HTML file: words, numbers, styles and the plotting library, all inside it."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import sys
from html import escape
from importlib import resources
from typing import Any

from jtrust import checks

_VEGA_LITE = "6.4"


def check_library() -> None:
    """Raises `BadArgument` where the plotting library is not installed; nothing is imported."""
    name = "vl_convert"
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        raise checks.BadArgument("RUN_DIR", "", "needs `pip install 'jtrust[report]'`")


@functools.cache
def library() -> str:
    """Vega, Vega-Lite and vega-embed as one script, [900 kB] of text."""
    import vl_convert

    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_VEGA_LITE)
    return script.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def to_html(content: dict[str, Any], *, kind: str, made: str) -> str:
    """The page.

    Args:
      content: of `make_content`; with "live" in it, the page asks for what is new.
      kind: what the page is called, "report" or "watch".
      made: when, and of what, in a sentence.
    """
    parts = {
        "title": escape(content["title"]), "kind": escape(kind), "made": escape(made),
        "connect": "'self'" if "live" in content else "'none'",
        "css": _asset("page.css"), "script": _asset("page.js"), "library": library(),
        "content": to_json(content).replace("<", "\\u003c"),
        **content["fragments"],
    }
    # In one pass: what a run has named stays as it is, braces and all.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def to_json(content: dict[str, Any]) -> str:
    """Without spaces, and nothing in it that JSON does not have."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


@functools.cache
def _asset(name: str) -> str:
    return resources.files("jtrust.reporting").joinpath("assets", name).read_text("utf-8")
