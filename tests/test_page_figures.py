"""README and pages are made of the results that lie in the repository: tables and single numbers."""

import contextlib
import copy
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from glimpsenet.bench.localization import write_results
from glimpsenet.data.config import DigitsConfig
from glimpsenet.errors import UserError
from glimpsenet.recipes import digits
from glimpsenet.reproduction.report import write_report
from glimpsenet.reproduction.rows import Setting
from glimpsenet.training.series import train_series

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
import page_figures  # noqa: E402
from page_numbers import NUMBERS  # noqa: E402
from page_readme import MISSING  # noqa: E402
from page_results import NotMeasuredError, Results  # noqa: E402

SIGNS = "whole-image-traffic-signs"
ARMS = {"best": [0.9, 0.7], "pathwise-mipmap": [0.6, 0.5], "mgnet": [0.2, 0.3], "oracle": [1.0, 0.9]}


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A checkout with results of training in today's format: one run's record, with these accuracies for two seeds."""
    root = tmp_path_factory.mktemp("checkout")
    config = digits()
    config = replace(
        config,
        model=replace(config.model, image_size=40, glimpse_size=10),
        data=DigitsConfig(train_scenes=8, val_scenes=8, test_scenes=8),
        training=replace(config.training, max_steps=1, batch_size=8, validations=1),
    )
    record = train_series({"best": [config]}, root / "runs", tell=lambda _: None)["best"][0]

    def records(accuracies: list[float]) -> list[dict]:
        entries = [copy.deepcopy(record) for _ in accuracies]
        for seed, (entry, accuracy) in enumerate(zip(entries, accuracies, strict=True)):
            entry["summary"]["seed"] = seed
            for policy in entry["evaluation"]["policies"].values():
                policy["accuracy"][-1] = accuracy
        return entries

    found = {name: records(accuracies) for name, accuracies in ARMS.items()}
    values = write_results(found, root / "runs", "glimpsenet bench localization --seeds 2")
    for part in ("", "-fifth", "-far"):
        write(root, f"localization-digits{part}.json", values)
    rows = {"baseline": found["mgnet"], "baseline-separate-norms": found["best"]}
    write_report(rows, root / "docs/reproduction", Setting(), "glimpsenet reproduce --seeds 2")
    signs = {"glimpses": values["methods"]["best"], "whole-image": values["methods"]["mgnet"], "photos": 8}
    signs |= {"difference": {"mean": 0.1, "low": 0.0, "high": 0.2}, "share_of_flops": 0.4}
    circumstances = {name: values[name] for name in ("command", "split", "seeds", "machine")}
    write(root, "whole-image-traffic-signs.json", signs | circumstances)
    return root


def write(root: Path, name: str, value: dict) -> None:
    (root / "benchmarks/results").mkdir(parents=True, exist_ok=True)
    (root / "benchmarks/results" / name).write_text(json.dumps(value))


def test_pages_are_made_of_the_results():
    texts = {file: file.read_text() for file in page_figures.pages(ROOT)}
    for file, page in texts.items():
        assert page_figures.fill(page, Results(ROOT)) == page, f"{file}: run python benchmarks/page_figures.py"
    everything = "".join(texts.values())
    for name in page_figures.ALL_TABLES:
        assert everything.count(f"<!-- figures: {name} -->") == 1, name
    for name in NUMBERS:
        assert f"<!--n {name}-->" in everything, name


@pytest.mark.parametrize(
    "name", ["README.md", *(f"docs/{name}.md" for name in ("localization", "speed", "reliability"))]
)
def test_no_accuracy_is_typed_by_hand(name):
    page = re.sub(r"(?s)```.*?```|`[^`]*`", "", (ROOT / name).read_text())
    page = page_figures.NUMBER.sub("", page_figures.TABLE.sub("", page))
    assert re.findall(r"\b0\.\d{3}\b", page) == []


def test_results_of_training_fill_every_table_and_number_made_of_them(measured):
    results, committed = Results(measured), Results(ROOT)
    for part in ("", "-fifth", "-far"):
        lines = page_figures.ALL_TABLES[f"localization-digits{part}"](results)
        assert len(lines) == 8  # two of the head, four arms, the circumstances after an empty line
        assert lines[2].startswith(
            "| `oracle` | trained and evaluated on the boxes: the bound | **0.950** ± 0.071 | 1.000 0.9"
        )
        assert re.search(r"--seeds 2`; split test; seeds 0 1; cpu \(.*, glimpsenet \d", lines[-1])
    assert "| **learned windows** | **0.800** ± 0.141 |" in "\n".join(page_figures.ALL_TABLES[SIGNS](results))
    accuracy = "\n".join(page_figures.ALL_TABLES["reproduction-accuracy"](results))
    assert "| baseline-separate-norms (ours) |  |  | 80.00 ± 14.14 | +55.00 | 90.0 70.0 |" in accuracy
    for name in ("settings", "windows", "gain"):
        assert len(page_figures.ALL_TABLES[f"reproduction-{name}"](results)) > 3
    timed = ("exit", "break-even", "sign", "fine", "photo")  # of results that have tests of their own
    for name, number in NUMBERS.items():
        assert name.startswith(timed) or filled(number, results, committed), name


def filled(number, *places: Results) -> str:
    """By the first of the places that have what it is made of."""
    for results in places:
        with contextlib.suppress(NotMeasuredError):
            return number(results)
    return ""


def test_the_headline_is_ours_less_the_like_for_like_arm_seed_by_seed(measured, tmp_path):
    assert NUMBERS["digits-headline"](Results(measured)) == "+25.0 ± 7.1"
    assert NUMBERS["digits-differences"](Results(measured)) == "+30.0 +20.0"
    values = json.loads((measured / "benchmarks/results/localization-digits.json").read_text())
    del values["split"]  # measured before there was a test split
    write(tmp_path, "localization-digits.json", values)
    with pytest.raises(NotMeasuredError, match=r"localization-digits\.json has no split"):
        NUMBERS["digits-headline"](Results(tmp_path))


def test_readmes_table_says_split_seeds_and_spread(measured):
    lines = page_figures.measured(Results(measured))
    row = next(line for line in lines if line.startswith("| digit scenes"))
    told = "**0.800** ± 0.141 | 0.900 0.700 | test, 2 seeds"
    assert row.startswith(f"| digit scenes: accuracy after four glimpses | {told} | ")
    assert [line for line in lines if MISSING in line] == lines[-5:]  # speed, early exit, faults
    assert all(MISSING in line for line in page_figures.measured(Results(measured / "nowhere"))[2:])


def test_speed_is_compared_in_the_same_mode(tmp_path):
    machine = dict.fromkeys(["device", "cpu", "instruction_set", "cores", "threads", "python", "torch"], "x")
    timed = {"what": "glimpses", "mode": "fast", "batch": 8, "ms": 40.0, "ms_quartiles": [39.0, 41.0]}
    values = {"command": "c", "machine": machine, "precision": "float32", "repetitions": 7}
    values["inference"] = [timed | {"share_of_roofline": 0.5, "peak_mb": 7.4}]
    write(tmp_path, "speed-resnet18.json", values)
    page = "before\n<!-- figures: speed-ratios -->\nold\n<!-- end of figures -->\nafter"
    assert "Not measured yet." in page_figures.fill(page, Results(tmp_path))  # as it was compared before
    values["ratios"] = [
        {"mode": mode, "batch": batch, "ratio": ratio, "ratio_quartiles": [ratio - 0.01, ratio + 0.02]}
        for batch, ratio in ((1, 1.5), (8, 0.75))
        for mode in ("eager", "fast")
    ]
    write(tmp_path, "speed-resnet18.json", values)
    new = page_figures.fill(page, Results(tmp_path))
    assert "| both fast | 1.50 (1.49-1.52) | 0.75 (0.74-0.77) |" in new.splitlines()
    assert "float32; medians of 7 repetitions" in new
    assert "old" not in new
    assert new.startswith("before\n")
    assert new.endswith("\nafter")
    assert page_figures.fill(new, Results(tmp_path)) == new
    told = next(line for line in page_figures.measured(Results(tmp_path)) if line.startswith("| ResNet-18"))
    settings = "batch 1 / 8; float32, x, x, x threads, 7 repetitions"
    assert f"| **1.50 / 0.75** | quartiles 1.49-1.52 / 0.74-0.77 | {settings} |" in told
    detail = page_figures.ALL_TABLES["inference"](Results(tmp_path))
    assert detail[2] == "| glimpses, fast | 8 | 40.0 (39.0-41.0) | 50% | 7 |"


def test_where_glimpses_pay_can_be_read_off(tmp_path):
    machine = dict.fromkeys(["device", "cpu", "instruction_set", "cores", "threads"], "x")
    cost = {"ms": 40.0, "ms_quartiles": [39.0, 41.0], "flops": 2e9, "peak_mb": 7.0}
    sized = {"varied": "image size", "value": 448, "ratio": 0.4, "ratio_quartiles": [0.3, 0.5], "image_mb": 1.0}
    rows = [cost | sized | {"batch": batch, "plain": cost | {"ms": 100.0}} for batch in (1, 16)]
    even = [{"batch": 1, "image_size": 448}, {"batch": 16, "image_size": None}]
    values = {"command": "c", "machine": machine, "mode": "fast", "repetitions": 7, "rows": rows, "break_even": even}
    write(tmp_path, "speed-scaling.json", values)
    lines = page_figures.ALL_TABLES["scaling"](Results(tmp_path))
    assert lines[2].startswith("| image size 448 | 1 | 0.40 (0.30-0.50) | 40.0 (39.0-41.0) | 100.0 (39.0-41.0) |")
    assert lines[-3].endswith("at batch 1: from 448 px on; batch 16: at none of these sizes.")
    assert NUMBERS["break-even-first"](Results(tmp_path)) == "from 448 px on"
    told = next(line for line in page_figures.measured(Results(tmp_path)) if "larger images" in line)
    assert "| **0.40 / 0.40** at 448 px | quartiles 0.30-0.50 / 0.30-0.50 | batch 1 / 16;" in told


def test_early_exit_says_its_seeds(tmp_path):
    machine = dict.fromkeys(["device", "cpu", "instruction_set", "cores", "threads"], "x")
    times = [{"batch": 1, "ms": 2.0, "ratio": 0.5, "ratios": [0.4, 0.6]}]
    row = {"accuracies": [0.9, 0.8], "falls": [0.002, 0.001], "fall": 0.0015, "mean_glimpses": 2.0, "flops": 3e6}
    candidates = [row | {"candidate": name, "times": times} for name in ("all glimpses", "calibrated")]
    said = {"command": "c", "split": "test", "seeds": [0, 1], "machine": machine}
    counts = {"images": 100, "timed_images": 10, "repetitions": 5}
    write(tmp_path, "speed-early-exit.json", said | counts | {"candidates": candidates})
    lines = page_figures.ALL_TABLES["early-exit"](Results(tmp_path))
    assert lines[3] == "| calibrated | **0.8500** ± 0.0707 | 0.20 0.10 | 2.00 | 3.0 | 2.00 (0.40 0.60) |"
    assert "split test; seeds 0 1;" in lines[-1]
    assert NUMBERS["exit-fall"](Results(tmp_path)) == "0.15 points (worst seed 0.20)"
    told = next(line for line in page_figures.measured(Results(tmp_path)) if line.startswith("| early exit"))
    assert (
        "| 0.15 points less for **0.50** of the time | 0.20 0.10 points | test, 100 scenes, 2 seeds; batch 1 |" in told
    )


def test_numbers_in_prose_and_cells(tmp_path):
    write(tmp_path, "faults.json", {"kills": 7, "while_saving": 3})
    page = "| **<!--n faults-kills-->20<!--/n-->** times | <!--n faults-saving-->?<!--/n-->, "
    page += "<!--n exit-fall-->0.1<!--/n--> |"
    told: list[str] = []
    new = page_figures.fill(page, Results(tmp_path), told.append)
    assert re.sub("<!--.*?-->", "", new) == f"| **7** times | 3, {MISSING} |"
    assert told == [f"exit-fall: there is no {tmp_path}/benchmarks/results/speed-early-exit.json"]
    for wrong, message in (
        ("of <!--n faults-kils-->20<!--/n-->", "nothing is called 'faults-kils'"),
        ("<!-- figures: mesured -->\n<!-- end of figures -->", "nothing is called 'mesured'"),
        ("of <!--n faults-kills-->20", "1 times '<!--n', but 0 whole markers"),
        ("of\n<!--n faults-kills-->20<!--/n--> kills", "'<!--n faults-kills-->' begins a line"),
        ("<!-- end of figures -->", "1 times '<!-- end of figures -->', but 0 whole markers"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            page_figures.fill(wrong, Results(tmp_path))


def test_the_command_checks_and_fills(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("of <!--n faults-kills-->20<!--/n--> kills\n")
    (tmp_path / "docs/page.md").write_text("nothing to fill\n")
    write(tmp_path, "faults.json", {"kills": 7})
    command = ["--root", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"README\.md: not as the results have it; run python benchmarks/page_figures"):
        page_figures.main([*command, "--check"])
    assert "20" in (tmp_path / "README.md").read_text()
    page_figures.main(command)
    assert (tmp_path / "README.md").read_text() == "of <!--n faults-kills-->7<!--/n--> kills\n"
    page_figures.main([*command, "--check"])
