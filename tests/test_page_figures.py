"""Pages are made of the results that lie in the repository."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def figures():
    spec = importlib.util.spec_from_file_location("page_figures", ROOT / "benchmarks" / "page_figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_made_of_the_results(figures):
    pages = [(ROOT / page).read_text() for page in figures.PAGES]
    for page in pages:
        assert figures.fill(page, ROOT / figures.RESULTS) == page, "run python benchmarks/page_figures.py"
    for name in figures.FIGURES:
        assert "".join(pages).count(f"<!-- figures: {name} -->") == 1


def test_a_table_by_hand(figures, tmp_path):
    def row(what: str, mode: str, ms: float) -> dict:
        return {
            "what": what,
            "mode": mode,
            "batch": 8,
            "ms": ms,
            "ms_quartiles": [ms - 1, ms + 1],
            "ratio": ms / 100,
        } | {
            "share_of_roofline": 0.5,
            "peak_mb": 7.4,
        }

    machine = dict.fromkeys(["device", "cpu", "cores", "threads", "python", "torch", "torchvision", "timm"], "x")
    rows = [row("plain", "eager", 100.0), row("plain", "fast", 80.0), row("glimpses", "fast", 40.0)]
    (tmp_path / "speed-resnet18.json").write_text(json.dumps({"command": "c", "machine": machine, "inference": rows}))
    page = "before\n<!-- figures: inference -->\nold\n<!-- end of figures -->\nafter"
    filled = figures.fill(page, tmp_path)
    assert "| glimpses, fast | 8 | 40.0 (39.0-41.0) | 0.40 | 0.50 | 50% | 7 |" in filled.splitlines()
    assert "old" not in filled
    assert filled.startswith("before\n")
    assert filled.endswith("\nafter")
    assert figures.fill(filled, tmp_path) == filled
    assert figures.MISSING in figures.fill(page, tmp_path / "empty")
