"""The tables that a run appends to, begun anew where it resumes."""

import pytest

from glimpsenet.training.logs import MetricsCSV, restart_csv

COLUMNS = ["step", "loss", "accuracy"]
WHOLE = "step,loss,accuracy\r\n5,0.5,\r\n10,0.25,0.125\r\n"


@pytest.mark.parametrize(
    "cut", ["", "1", "15", "15,", "15,0.5", "15,0.5,", "15,0.5,0.37", "15,0.5\r\n", "\0\0\0", "\xff"]
)
def test_rows_that_were_cut_off_are_dropped_wherever_the_cut(tmp_path, cut):
    file = tmp_path / "table.csv"
    file.write_bytes((WHOLE + cut).encode("latin-1"))
    restart_csv(file, COLUMNS, resume_at=20)
    assert file.read_bytes() == WHOLE.encode()


def test_rows_after_the_checkpoint_go_and_a_new_run_begins_empty(tmp_path):
    file = tmp_path / "table.csv"
    file.write_bytes(WHOLE.encode())
    restart_csv(file, COLUMNS, resume_at=9)
    assert file.read_text().splitlines() == ["step,loss,accuracy", "5,0.5,"]
    restart_csv(file, COLUMNS, resume_at=0)
    assert file.read_text().splitlines() == ["step,loss,accuracy"]


def test_metrics_go_on_after_a_cut(tmp_path):
    file = tmp_path / "metrics.csv"
    MetricsCSV(file, 2).log_metrics({"train/loss": 0.5}, step=4)
    whole = file.read_bytes()
    file.write_bytes(whole + whole.splitlines()[1][:9])
    assert MetricsCSV(file, 2, resume_at=5).file.read_bytes() == whole
