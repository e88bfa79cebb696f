"""Two processes on one machine, as ``--devices 2`` starts them: one run folder, nothing counted twice."""

import json
import os
import subprocess
import sys


def test_two_processes_leave_one_run(tmp_path):
    size = ["--image-size", "40", "--glimpse-size", "12", "--train-scenes", "32", "--val-scenes", "9"]
    schedule = ["--max-steps", "4", "--batch-size", "4", "--validations", "2", "--device", "cpu", "--devices", "2"]
    command = [sys.executable, "-m", "glimpsenet", "train", "digits", *size, *schedule, "--out", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["steps"] == 4
    assert summary["metrics"]["num_images"] == 9
    rows = (tmp_path / "run/metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "2", "2", "3", "4", "4"]
    assert done.stdout.count("validation images") == 1
