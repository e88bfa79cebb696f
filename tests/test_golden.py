"""Every recipe, policy, variant, objective and command gives what it gave: pinned in tests/golden."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


sys.path.insert(0, str(ROOT / "benchmarks"))
import golden  # noqa: E402
import golden_commands  # noqa: E402

PINNED = json.loads((ROOT / golden.PINNED).read_text())
COMMANDS = json.loads((ROOT / golden_commands.PINNED).read_text())
NAMES = [name for name, *_ in golden.cases() if name not in golden.UNPINNED]


@pytest.mark.parametrize("name", NAMES)
def test_it_computes_what_it_computed(name):
    computed = golden.compute_all(lambda other: other == name)[name]
    worst = max(golden.differences(PINNED[name], computed), key=lambda difference: difference[1], default=("", 0.0))
    assert worst[1] <= golden.TOLERANCE, worst


@pytest.mark.parametrize("name", golden_commands.names())
def test_a_command_reports_what_it_reported(name, tmp_path):
    computed = golden_commands.compute(name, tmp_path)
    worst = max(golden.differences(COMMANDS[name], computed), key=lambda difference: difference[1], default=("", 0.0))
    assert worst[1] <= golden.TOLERANCE, worst


def test_nothing_is_pinned_that_is_not_computed():
    assert sorted(PINNED) == sorted(NAMES)
    assert sorted(COMMANDS) == sorted(golden_commands.names())


def test_differences_are_relative_and_see_what_is_missing():
    assert list(golden.differences({"a": [1.0, 200.0]}, {"a": [1.0, 202.0]})) == [("/a/1", 0.01)]
    assert list(golden.differences({"a": [0.1]}, {"a": [0.3]})) == [("/a/0", pytest.approx(0.2))]
    assert list(golden.differences({"a": 1}, {"b": 1})) == [("/a", float("inf")), ("/b", float("inf"))]
    assert list(golden.differences([1], [1, 2])) == [("", float("inf"))]
