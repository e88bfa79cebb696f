"""Two processes on one machine, as ``--devices 2`` starts them: one run folder, nothing counted twice.

They talk over gloo, and learn what one process with the same global batch learns.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch


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
    assert done.stdout.count("val images") == 1


def test_two_processes_learn_what_one_does_with_the_same_global_batch(margins):
    experiment = margins.EXPERIMENTS["processes"]
    experiment.check(experiment.measure(0))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the second process through /proc")
def test_when_one_process_is_terminated_both_stop_after_the_same_step_and_go_on_as_if_undisturbed(tmp_path):
    size = ["--image-size", "40", "--glimpse-size", "12", "--train-scenes", "32", "--val-scenes", "9"]
    schedule = ["--max-steps", "24", "--batch-size", "4", "--validations", "2", "--device", "cpu", "--devices", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(name: str, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "glimpsenet", "train", "digits", *size, *schedule]
        command += ["--out", str(tmp_path / name), *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    whole = start("whole")
    assert "sync_dist" not in whole.communicate(timeout=240)[1]
    broken, rows = start("broken"), tmp_path / "broken/metrics.csv"
    while broken.poll() is None and not (rows.exists() and rows.read_text().count("\n") > 2):
        time.sleep(0.02)
    (second,) = Path(f"/proc/{broken.pid}/task/{broken.pid}/children").read_text().split()
    os.kill(int(second), signal.SIGTERM)
    error = broken.communicate(timeout=240)[1]
    assert broken.returncode == 143, error[-2000:]
    step = torch.load(tmp_path / "broken/checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert 2 <= step < 24
    assert f"terminated after step {step}; resume to continue" in error
    resumed = start("broken", "--resume")
    assert resumed.communicate(timeout=240)[0]
    assert resumed.returncode == 0
    one, two = (safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_torchrun_starts_two_machines_that_are_one(tmp_path):
    """The command of the documentation, once for each machine; both are this one."""
    size = ["--image-size", "40", "--glimpse-size", "12", "--train-scenes", "32", "--val-scenes", "9"]
    schedule = ["--max-steps", "2", "--batch-size", "4", "--validations", "1", "--device", "cpu", "--num-nodes", "2"]
    command = ["-m", "glimpsenet", "train", "digits", *size, *schedule, "--out", str(tmp_path / "run")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    meet = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", port]
    machines = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *meet, "--node-rank", rank, *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        )
        for rank in "01"
    ]  # fmt: skip
    told = [machine.communicate(timeout=240)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "".join(told)[-2000:]
    assert json.loads((tmp_path / "run/summary.json").read_text())["metrics"]["num_images"] == 9
    assert ["the run is in" in text for text in told] == [True, False]
