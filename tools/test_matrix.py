"""Run the whole suite in six ways: three random orders, two threads, and two instruction sets of the processor.

Command: ``python tools/test_matrix.py [PYTEST_ARGUMENT ...]``; the arguments select tests, all by default. Exits
with 1 if any test fails. ``ATEN_CPU_CAPABILITY`` is a PyTorch variable that selects the kernels of ATen.
"""

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glimpsenet.tables import print_table

PYTEST = [sys.executable, "-m", "pytest", "-n", "2"]
INSTRUCTION_SET = "ATEN_CPU_CAPABILITY"


@dataclass(frozen=True)
class Suite:
    """One way to run the tests."""

    name: str
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def in_order(seed: int) -> Suite:
    """Modules, and tests within them, shuffled; random numbers stay as the tests seed them."""
    shuffle = ["-p", "randomly", f"--randomly-seed={seed}", "--randomly-dont-reset-seed"]
    return Suite(f"random order {seed}", shuffle)


SUITES = [
    *(in_order(seed) for seed in (1, 2, 3)),
    Suite("two threads", environment={"GLIMPSENET_TEST_THREADS": "2"}),
    *(Suite(name, environment={INSTRUCTION_SET: name}) for name in ("default", "avx2")),
]


@dataclass(frozen=True)
class Outcome:
    """How many tests went how, and which of them failed."""

    passed: int
    failed: Sequence[str]
    skipped: int

    @classmethod
    def read(cls, report: Path) -> "Outcome":
        """From the file that ``--junitxml`` writes; none passed, and one failure, where there is no such file."""
        if not report.exists():
            return cls(0, ["pytest itself"], 0)
        cases = list(ET.parse(report).iter("testcase"))
        failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
        skipped = [case for case in cases if case.find("skipped") is not None]
        # A test whose teardown fails too is there twice.
        names = list(dict.fromkeys(f"{case.get('classname')}::{case.get('name')}" for case in failed))
        return cls(len(cases) - len(failed) - len(skipped), names, len(skipped))


def run(suite: Suite, arguments: Sequence[str]) -> Outcome:
    """Run it, with pytest's output where ours goes."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [*PYTEST, *suite.arguments, f"--junitxml={report}", *arguments]
        code = subprocess.run(command, env={**os.environ, **suite.environment}, check=False).returncode
        outcome = Outcome.read(report)
    if code and not outcome.failed:
        outcome = Outcome(outcome.passed, [f"pytest itself, with {code}"], outcome.skipped)
    return outcome


def missing_instructions(suite: Suite) -> str | None:
    """What the processor computes with instead of the instruction set that a suite asks for; None where it has it."""
    wanted = suite.environment.get(INSTRUCTION_SET)
    if wanted is None:
        return None
    question = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    environment = {**os.environ, **suite.environment}
    told = subprocess.run([sys.executable, "-c", question], env=environment, check=True, capture_output=True, text=True)
    found = told.stdout.strip().lower()
    return None if found == wanted else found


def main() -> None:
    """Run all of them and print a table."""
    rows, failures, notes = [], [], []
    for suite in SUITES:
        if found := missing_instructions(suite):
            notes.append(f"{suite.name} was not run: PyTorch computes with {found} on this processor")
            continue
        print(f"== {suite.name} ==", flush=True)
        start = time.monotonic()
        outcome = run(suite, sys.argv[1:])
        counts = [outcome.passed, len(outcome.failed), outcome.skipped, round(time.monotonic() - start)]
        rows.append([suite.name, *map(str, counts)])
        failures += [f"{suite.name}: {name}" for name in outcome.failed]
    print_table("Test matrix", ["suite", "passed", "failed", "skipped", "seconds"], rows)
    print("\n".join([*notes, *failures]))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
