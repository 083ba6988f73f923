"""scripts/profile.py is named like a standard module, which other scripts' imports may mean."""

import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def test_beside_it_the_standard_module_of_its_name_is_found(tmp_path):
    # As for `python scripts/train.py`: the folder of the script stands first.
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import cProfile, profile; "
        "print(profile.Profile.__module__, profile.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    name, file = done.stdout.split(maxsplit=1)
    assert name == "profile"
    assert SCRIPTS not in Path(file.strip()).parents
