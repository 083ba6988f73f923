"""`jtrust envs`."""

from __future__ import annotations

from collections.abc import Sequence

from jtrust import checks


def run(args: Sequence[str]) -> int:
    from jtrust.environments import SUITES
    from jtrust.startup import check_platform

    if args and args[0] in ("-h", "--help"):
        print(
            "usage: jtrust envs\n\nLists what ENV may be, with the backends of each; beside these, "
            "MODULE:CALLABLE makes one of your own."
        )
        return 0
    if args:
        raise checks.BadArgument("ARGUMENT", args[0], "`jtrust envs` takes none")
    check_platform()
    for label, suite in SUITES.items():
        try:
            names = suite.names()
        except checks.BadArgument as error:
            print(f"{label + '/...':50}{error.remedy}")
            continue
        for name in names:
            said = " ".join([*suite.backends(name), suite.remark(name)])
            print(f"{label + '/' + name:50}{said}".rstrip())
    return 0
