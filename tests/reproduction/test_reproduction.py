"""Training rows, going on after an interruption, and the report, on a handful of images."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from glimpsenet.data.config import DigitsConfig
from glimpsenet.data.digits import write_scenes
from glimpsenet.errors import SettingError, UserError
from glimpsenet.models.backbone import create_backbone_net
from glimpsenet.reproduction.report import Section, summarize, to_html, to_markdown, write_report
from glimpsenet.reproduction.rows import Setting
from glimpsenet.reproduction.run import train_rows
from glimpsenet.training import series

# Twelve scenes cannot show ten digits each.
pytestmark = pytest.mark.filterwarnings("ignore:no images of:glimpsenet.errors.DataWarning")

ROWS = ["baseline", "2d-spatial-loc-s7-no-aux", "pretrained-frozen", "baseline-separate-norms", "baseline-whole-image"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reproduction")
    write_scenes(folder / "scenes", DigitsConfig(train_scenes=60, val_scenes=12, test_scenes=12), 40, seed=0)
    torch.manual_seed(0)
    weights = folder / "weights.safetensors"
    safetensors.torch.save_file(create_backbone_net("glimpse_cnn").state_dict(), weights)
    setting = Setting(folder / "scenes", max_steps=2, image_size=40, backbone="glimpse_cnn", backbone_weights=weights)
    return folder, setting, train_rows(ROWS, folder / "out", setting, tell=lambda _: None)


def test_rows_are_trained_as_they_say(trained):
    folder, setting, results = trained
    assert sorted(results) == sorted(ROWS)
    for entries in results.values():
        assert set(entries[0]["evaluation"]["policies"]) == {"learned", "random", "center", "none", "oracle"}
    frozen = results["pretrained-frozen"][0]["summary"]["cost"]
    assert frozen["trainable_parameters"] < frozen["parameters"]
    early = safetensors.torch.load_file(folder / "out/pretrained-frozen/seed-0/model.safetensors")
    start = safetensors.torch.load_file(setting.backbone_weights)
    assert torch.equal(early["backbone.net.stages.0.0.weight"], start["stages.0.0.weight"])


def test_finished_rows_are_not_repeated_and_lost_ones_are(trained, monkeypatch):
    folder, setting, _ = trained
    again = []
    original = series.fit
    monkeypatch.setattr(series, "fit", lambda config, out, **k: (again.append(out), original(config, out, **k)))
    lost = folder / "out/records/baseline-seed-0.json"
    before = json.loads(lost.read_text())
    lost.unlink()  # as if it had been interrupted before
    train_rows(ROWS, folder / "out", setting, tell=lambda _: None)
    assert again == [folder / "out/baseline/seed-0"]
    assert json.loads(lost.read_text())["evaluation"] == before["evaluation"]


def test_another_setting_is_refused(trained):
    folder, setting, _ = trained
    other = Setting(setting.data, 3, setting.image_size, setting.backbone, setting.backbone_weights)
    with pytest.raises(UserError, match=r"baseline-seed-0\.json is of another setting"):
        train_rows(["baseline"], folder / "out", other, tell=lambda _: None)
    with pytest.raises(SettingError, match="unknown row 'basline'; available: baseline, "):
        train_rows(["basline"], folder / "out", setting)


def test_the_report_shows_the_papers_numbers_beside_ours(trained):
    folder, setting, results = trained
    out = folder / "out"
    values = write_report(results, out, setting)
    assert values["seeds"] == [0]
    assert values["machine"] == results["baseline"][0]["summary"]["machine"]
    text = (out / "report.md").read_text()
    accuracy = 100 * values["rows"]["2d-spatial-loc-s7-no-aux"]["accuracy"]
    base = 100 * values["rows"]["baseline"]["accuracy"]
    row = f"| 2d-spatial-loc-s7-no-aux | 67.45 | -16.54 | {accuracy:.2f} | {accuracy - base:+.2f} |"
    assert row in text
    assert "| paper's baseline | 83.99 | 81.33 | 75.20 |  | 30% |" in text
    for picture in re.findall(r"\]\((.*?)\)", text):
        assert (out / picture).stat().st_size > 5000
    page = (out / "report.html").read_text()
    assert "src='data:image/png;base64," in page
    assert not re.search(r"(src|href)='(?!data:)", page)


def test_a_damaged_result_is_named(trained):
    folder, setting, _ = trained
    file = folder / "out/records/baseline-seed-0.json"
    before = file.read_text()
    for damaged in (before[: len(before) // 2], "[]", '{"config": {}, "evaluation": {}, "curve": {}}'):
        file.write_text(damaged)
        with pytest.raises(UserError, match=r"baseline-seed-0\.json is damaged: .*; remove it to train that run again"):
            train_rows(["baseline"], folder / "out", setting, tell=lambda _: None)
    file.write_text(before)


def test_a_committed_record_stands_for_a_run_whose_folder_is_gone(trained, tmp_path):
    folder, setting, results = trained
    kept = folder / "out/records"
    elsewhere = tmp_path / "data"
    elsewhere.symlink_to(setting.data)  # the same data under another path
    again = train_rows(["baseline"], tmp_path / "new", replace(setting, data=elsewhere), records=kept)
    assert again["baseline"][0]["evaluation"] == results["baseline"][0]["evaluation"]
    assert not (tmp_path / "new").exists()


def test_means_and_deviations_over_seeds():
    def entry(accuracy: float, spread: float) -> dict:
        window = {"window_mean": [[0.4, 0.0, 0.0]], "window_spread": [[spread, 0.0, 0.0]]}
        policy = {"accuracy": [0.1, accuracy], "hit_rate": None, **window}
        cost = {"parameters": 10, "trainable_parameters": 8, "share_of_full_pass": None}
        policies = dict.fromkeys(("learned", "random", "none"), policy)
        return {"evaluation": {"policies": policies}, "summary": {"cost": cost}}

    values = summarize([entry(0.5, 0.1), entry(0.7, 0.3)])
    assert values["accuracy"] == pytest.approx(0.6)
    assert values["accuracy_deviation"] == pytest.approx(0.02**0.5)
    assert values["window_spread"] == pytest.approx([0.2, 0, 0])
    assert values["trainable_share"] == 0.8


def test_names_are_escaped_in_html():
    sections = [Section("a <b>", "x & y", [["<i>", "1"], ["2", "3"]])]
    page = to_html(sections)
    assert "<h1>a &lt;b&gt;</h1>" in page
    assert "<th>&lt;i&gt;</th>" in page
    assert to_markdown(sections).startswith("# a <b>\n\nx & y\n\n| <i> | 1 |\n|---|---:|\n| 2 | 3 |")


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="out is a file, not a folder"):
        train_rows(["baseline"], tmp_path / "out", Setting())
