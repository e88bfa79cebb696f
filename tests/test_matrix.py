"""The test matrix: what it counts, what it leaves out, and that orders are shuffled there and nowhere else."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def matrix():
    specification = importlib.util.spec_from_file_location("matrix", ROOT / "tools/test_matrix.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["matrix"] = module
    specification.loader.exec_module(module)
    return module


REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="good"/><testcase classname="tests.a" name="also"/>
<testcase classname="tests.a" name="bad"><failure/></testcase>
<testcase classname="tests.a" name="bad"><error/></testcase>
<testcase classname="tests.b" name="left_out"><skipped/></testcase>
</testsuite></testsuites>"""


def test_six_suites_are_counted_and_failures_named(matrix, monkeypatch, capsys):
    runs = []

    def run(command, env, **_):
        runs.append((command, env))
        (report,) = [part.removeprefix("--junitxml=") for part in command if part.startswith("--junitxml=")]
        if len(runs) == 4:
            Path(report).write_text(REPORT)
        elif len(runs) < 6:
            Path(report).write_text(REPORT.replace("<failure/>", "").replace("<error/>", ""))
        return subprocess.CompletedProcess(command, {4: 1, 6: 3}.get(len(runs), 0))

    monkeypatch.setattr(matrix, "missing_instructions", lambda suite: None)
    monkeypatch.setattr(matrix.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["test_matrix.py", "tests/a.py"])
    with pytest.raises(SystemExit) as caught:
        matrix.main()
    assert caught.value.code == 1
    assert all(command[-1] == "tests/a.py" for command, _ in runs)
    assert [env.get("ATEN_CPU_CAPABILITY") for _, env in runs[4:]] == ["default", "avx2"]
    assert runs[3][1]["GLIMPSENET_TEST_THREADS"] == "2"
    told = capsys.readouterr().out
    lines = told[told.index("suite ") :].splitlines()
    rows = [line.split()[-4:-1] for line in lines if line.split()[-1:] and line.split()[-1].isdecimal()]
    assert rows == [["4", "0", "1"]] * 3 + [["2", "1", "1"], ["4", "0", "1"], ["0", "1", "0"]]
    assert "two threads: tests.a::bad" in lines
    assert "avx2: pytest itself" in lines


def test_an_instruction_set_that_the_processor_lacks_is_left_out_in_one_line(matrix, monkeypatch, capsys):
    def run(command, **_):
        return subprocess.CompletedProcess(command, 0, stdout="DEFAULT\n")

    monkeypatch.setattr(matrix.subprocess, "run", run)
    monkeypatch.setattr(matrix, "run", lambda suite, arguments: matrix.Outcome(1, [], 0))
    with pytest.raises(SystemExit) as caught:
        matrix.main()
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert "avx2 was not run: PyTorch computes with default on this processor" in told
    assert "== avx2 ==" not in told
    assert "== default ==" in told


def test_the_order_is_shuffled_in_the_matrix_only(matrix, tmp_path):
    names = [f"test_{letter}" for letter in "abcdefghij"]
    (tmp_path / "test_order.py").write_text("".join(f"def {name}(): pass\n" for name in names))

    def collected(*arguments: str) -> list[str]:
        settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "--collect-only", "-q"]
        command = [sys.executable, "-m", "pytest", *settings, "-p", "no:cacheprovider", *arguments, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [line.split("::")[1] for line in done.stdout.splitlines() if "::" in line]

    orders = [collected(*suite.arguments) for suite in matrix.SUITES[:4]]
    assert all(sorted(order) == names for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert orders[3] == names
