"""Check that all types of the public interface of ``glimpsenet`` are known to its users.

pyright's ``--verifytypes`` checks the package as a user's type checker does, without inference. Of its report, only the
exported names count, with everything that their signatures and attributes refer to.

Command: ``python tools/check_types.py`` (part of ``make lint``).
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def check(report: dict[str, Any], names: set[str]) -> list[str]:
    """Problems of the exported ``names`` in pyright's report, one a line; a name that is not there is one too."""
    symbols = {symbol["name"]: symbol for symbol in report["symbols"]}
    problems = [f"{name}: not seen by pyright" for name in sorted(names) if f"glimpsenet.{name}" not in symbols]
    for name in sorted(names):
        symbol = symbols.get(f"glimpsenet.{name}")
        if symbol is None or (symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]):
            continue
        parts = [part for part in symbols.values() if f".{name}." in f"{part['name']}." and part["diagnostics"]]
        told = "; ".join(f"{part['name']}: {part['diagnostics'][0]['message']}" for part in parts)
        problems.append(f"{name}: {' '.join(told.split()) or 'refers to one of the others'}")
    return problems


if __name__ == "__main__":
    place = os.path.dirname(sys.executable)
    command = [f"{place}/pyright", "--verifytypes", "glimpsenet", "--ignoreexternal", "--outputjson"]
    # pyright asks the first `python` on the path where packages are.
    variables = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    listed = re.search(r"__all__ = \[(.*?)\]", (ROOT / "src/glimpsenet/__init__.py").read_text(), re.S)
    assert listed is not None
    names = set(re.findall(r'"(\w+)"', listed[1]))
    if problems := check(json.loads(done.stdout)["typeCompleteness"], names):
        sys.exit("\n".join(problems))
    print(f"the types of all {len(names)} public names are known")
