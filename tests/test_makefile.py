"""Everything that the Makefile offers is listed by `make help`, and what workflows call is offered."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def targets() -> set[str]:
    (names,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.M)
    return set(names.split())


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("command", [["make"], ["make", "help"]])
def test_make_help_lists_every_target(targets, command):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in shown.splitlines()} == targets


def test_workflows_call_targets_that_exist(targets):
    called: set[str] = set()
    for file in (ROOT / ".github/workflows").glob("*.yml"):
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            chosen = job["strategy"]["matrix"].get("target", [])
            for command in (step.get("run", "") for step in job["steps"]):
                words = [word for word in command.replace("${{ matrix.target }}", "TARGET").split() if "=" not in word]
                called |= {name for word in words[1:] for name in (chosen if word == "TARGET" else [word])}
    assert called == {"lint", "docs", "dist", "test"}
    assert called <= targets
