"""Builds the wheel and the source distribution, and trains with each in empty environments.

    python scripts/check_release.py [--pythons 3.11 3.12 3.13] [--versions lowest newest]
                                    [--table docs/versions.md]

Each Python that is found gets two environments outside of the repository: one with the newest
versions of all dependencies and the wheel, one with the lowest that `pyproject.toml` allows and the
source distribution. In each a policy is trained, resumed, evaluated and loaded, and every version
that was installed is written down. Exit status 1 where any of that failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHOWN = ("jax", "brax", "flax", "optax", "chex", "orbax-checkpoint", "numpy")
# What a user would type first, small; it runs where nothing of the repository lies around.
_TRIAL = """\
import importlib.metadata, json, sys
import jax, jtrust
from pathlib import Path

assert "site-packages" in jtrust.__file__, jtrust.__file__
result = jtrust.train("brax/inverted_pendulum", jtrust.TRPO(), num_envs=8, total_steps=2048,
                      unroll_length=32, seed=0, run_dir="run")
policy = jtrust.load_policy("run")
action = policy(jax.numpy.zeros(4))
assert action.shape == (1,), action.shape
assert (action == result.policy(jax.numpy.zeros(4))).all()
names = sys.argv[1].split(",")
Path("versions.json").write_text(json.dumps({n: importlib.metadata.version(n) for n in names}))
"""
_COMMANDS = (
    ("resume", "run", "--steps", "4096"), ("evaluate", "run", "--episodes", "4", "--json"),
    ("envs",),
)


def main() -> int:
    options = _parse()
    pythons = {v: found for v in options.pythons if (found := find_python(v))}
    for version in options.pythons:
        if version not in pythons:
            print(f"Python {version}: not found")
    with tempfile.TemporaryDirectory(prefix="jtrust-release-") as place:
        wheel, source = build(Path(place))
        rows = [
            attempt(Path(place), python, version, which, wheel if which == "newest" else source)
            for version, python in pythons.items() for which in options.versions
        ]
    table = as_table(rows)
    print(table)
    if options.table:
        options.table.write_text(table)
    return 0 if rows and all(row["result"] == "trains" for row in rows) else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pythons", nargs="+", default=["3.11", "3.12", "3.13", "3.14"])
    parser.add_argument(
        "--versions", nargs="+", choices=("lowest", "newest"), default=["lowest", "newest"]
    )
    parser.add_argument("--table", type=Path, help="where to write the table")
    return parser.parse_args()


def find_python(version: str) -> str | None:
    """The path of an interpreter of this version, such as 3.12: on PATH, or one of pyenv's."""
    places = [shutil.which(f"python{version}")]
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    places += map(str, sorted(root.glob(f"versions/{version}.*/bin/python{version}"), reverse=True))
    for place in filter(None, places):
        said = subprocess.run(
            [place, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True, text=True,
        )
        if said.stdout.strip() == version:  # a shim of pyenv's may stand for none
            return place
    return None


def build(place: Path) -> tuple[Path, Path]:
    """(wheel, source distribution), built in an environment of their own.

    Raises:
      SystemExit: where one lacks a file of the package.
    """
    subprocess.run([sys.executable, "-m", "venv", place / "build"], check=True)
    python = place / "build/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "build"], check=True)
    subprocess.run(
        [python, "-m", "build", "--outdir", place / "dist", ROOT], check=True, capture_output=True
    )
    (wheel,), (source,) = (place / "dist").glob("*.whl"), (place / "dist").glob("*.tar.gz")
    tracked = subprocess.run(
        ["git", "ls-files", "jtrust"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    missing = set(tracked) - set(zipfile.ZipFile(wheel).namelist())
    if missing:
        raise SystemExit(f"the wheel lacks {', '.join(sorted(missing))}")
    return wheel, source


def lowest() -> list[str]:
    """Requirements that pin each dependency to the lowest version allowed."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        dependencies = tomllib.load(file)["project"]["dependencies"]
    pins = []
    for requirement in dependencies:
        match = re.fullmatch(r"([A-Za-z0-9_.-]+)>=([^,]+)(,.*)?", requirement)
        if match is None:
            raise SystemExit(f"{requirement!r} has no lower bound")
        pins.append(f"{match[1]}=={match[2]}")
    return pins


def attempt(place: Path, python: str, version: str, which: str, artifact: Path) -> dict[str, str]:
    """Installs and trains: what was installed, and what came of it."""
    home = place / f"{version}-{which}"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
    environment |= {"JAX_PLATFORMS": "cpu", "XDG_STATE_HOME": str(home / "state")}

    def do(*command: object) -> None:
        subprocess.run(
            [str(x) for x in command], check=True, capture_output=True, text=True, cwd=home,
            env=environment,
        )

    row = {"python": version, "which": which, "artifact": artifact.suffix}
    try:
        do(python, "-m", "venv", "env")
        own = home / "env/bin/python"
        pins = lowest() if which == "lowest" else []
        do(own, "-m", "pip", "install", "--quiet", artifact, *pins)
        do(own, "-c", _TRIAL, ",".join(SHOWN))
        for command in _COMMANDS:
            do(home / "env/bin/jtrust", *command)
        row |= json.loads((home / "versions.json").read_text()) | {"result": "trains"}
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip().splitlines() or [""]
        print(f"Python {version}, {which}: {' '.join(error.cmd[:4])}\n" + "\n".join(said[-15:]))
        row["result"] = "fails: " + said[-1][:100]
    shutil.rmtree(home)  # environments are large, and there are several
    print(f"Python {version}, {which}: {row['result']}", flush=True)
    return row


def as_table(rows: list[dict[str, str]]) -> str:
    """The page that says what was tried."""
    head = ("Python", "versions", *SHOWN, "")
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = (
            row["python"], f"{row['which']} ({'wheel' if row['artifact'] == '.whl' else 'sdist'})",
            *(row.get(name, "") for name in SHOWN), row["result"],
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join((
        "# Versions that were tried", "",
        "Made by `python scripts/check_release.py --table PATH`: `jtrust` installed in empty",
        "environments from its wheel or source distribution, a policy trained, resumed, evaluated",
        "and loaded.", "", *lines, "",
    ))


if __name__ == "__main__":
    sys.exit(main())
