"""Exported models against the library: every localization, any batch size, early exit without this library."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from glimpsenet.cli import main
from glimpsenet.config import Config
from glimpsenet.errors import SettingError, UserError
from glimpsenet.inference import ExitRule, Predictor
from glimpsenet.inference.early_exit import exit_scores
from glimpsenet.inference.export import METADATA, export, run_onnx
from glimpsenet.models.build import build_model
from glimpsenet.models.config import (
    BilinearConfig,
    LinearizedConfig,
    MeanConfig,
    MipmapConfig,
    ModelConfig,
    NoFusionConfig,
    PositionalClueConfig,
)
from glimpsenet.policies.config import LinearConfig, SpatiotemporalConfig, TokenConfig
from glimpsenet.runs import Description, Run, save_weights, write_description

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CLASSES = ["left", "right", "neither"]


def make_run(folder: Path, **settings) -> Run:
    torch.manual_seed(0)
    defaults = {"backbone": "glimpse_cnn", "image_size": 40, "glimpse_size": 12, "num_glimpses": 3}
    config = Config(model=ModelConfig(**{**defaults, **settings}))
    model = build_model(config.model, num_classes=3, in_channels=1).eval()
    if config.model.policy.kind == "tokens":
        torch.nn.init.normal_(model.policy.score.weight)
    torch.nn.init.normal_(model.classifier.weight, std=0.5)
    return Run(config, CLASSES, 1, model, folder)


def images_of(count: int) -> torch.Tensor:
    torch.manual_seed(count)
    return F.interpolate(torch.rand(count, 1, 6, 6), size=40, mode="bilinear")


def opset_of(file: Path) -> int:
    """The operator set an ONNX file names; TensorRT computes GridSample wrongly at 20."""
    import onnx

    (version,) = (entry.version for entry in onnx.load(file).opset_import if entry.domain in ("", "ai.onnx"))
    return version


def in_onnxruntime(file: Path):
    """A file as a program without this library runs it: names and arrays."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    inputs = [node.name for node in session.get_inputs()]

    def run(values: dict) -> dict:
        return dict(zip(names, session.run(names, {name: values[name] for name in inputs}), strict=True))

    return run


WHOLE = [
    ("onnx", {"policy": LinearConfig(), "sampling": BilinearConfig()}),
    ("onnx", {"policy": TokenConfig(), "sampling": MipmapConfig(), "batch_norm": "separate"}),
    ("onnx", {"policy": SpatiotemporalConfig(), "fusion": MeanConfig(), "num_glimpses": 2}),
    ("pt2", {"policy": LinearConfig(), "sampling": MipmapConfig(), "clue": PositionalClueConfig()}),
    ("pt2", {"policy": TokenConfig(scales=(0.2, 0.4)), "sampling": BilinearConfig()}),
    ("pt2", {"policy": SpatiotemporalConfig(), "sampling": LinearizedConfig(), "fusion": NoFusionConfig()}),
]


@pytest.mark.parametrize(
    ("format", "settings"),
    WHOLE,
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_the_unrolled_loop_computes_the_same_at_any_batch_size(tmp_path, format, settings):
    run = make_run(tmp_path, **settings)
    (file,) = export(run, tmp_path / f"model.{format}", format)
    if format == "onnx":
        assert opset_of(file) == 18
        program = in_onnxruntime(file)
    else:
        module = torch.export.load(file).module()

        def program(values):
            return {name: values.numpy() for name, values in module({"images": torch.tensor(values["images"])}).items()}

    for count in (1, 2, 5):
        images = images_of(count)
        with torch.no_grad():
            expected = run.model(run.model.normalization(images))
        found = program({"images": images.numpy()})
        torch.testing.assert_close(torch.tensor(found["logits"]), expected.logits, atol=1e-4, rtol=0)
        torch.testing.assert_close(torch.tensor(found["windows"]), expected.windows, atol=1e-4, rtol=0)


def test_onnx_samples_with_gridsample_and_carries_names_and_sizes(tmp_path):
    import onnx

    run = make_run(tmp_path, num_glimpses=1)
    (file,) = export(run, tmp_path / "model.onnx")
    model = onnx.load(file)
    assert opset_of(file) == 18
    assert "GridSample" in {node.op_type for node in model.graph.node}
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props if not entry.key.startswith("pkg")}
    assert metadata["classes"] == CLASSES
    assert (metadata["image_size"], metadata["channels"], metadata["num_glimpses"]) == (40, 1, 1)
    assert not list(tmp_path.glob(".*")), "nothing is left beside it"


def test_stepwise_onnx_exits_early_as_the_predictor_does(tmp_path):
    """Also the example of docs/speed.md: nothing but ONNX Runtime and numpy."""
    sampling = {"sampling": MipmapConfig(), "batch_norm": "separate"}
    run = make_run(tmp_path, policy=TokenConfig(), glimpse_ensemble=True, **sampling)
    files = export(run, tmp_path / "model.onnx", stepwise=True)
    assert [file.name for file in files] == [f"model.glimpse{glimpse}.onnx" for glimpse in (1, 2, 3)]
    assert {opset_of(file) for file in files} == {18}
    images = images_of(12)
    with torch.no_grad():
        scores = exit_scores(run.model(run.model.normalization(images)).logits, "confidence")
    threshold = float(scores[:, 0].sort().values[5:7].mean())  # between two images: rounding must not decide
    expected = Predictor(run.model, ExitRule(threshold))(images)

    example = Path(__file__).parents[2] / "docs" / "speed.md"
    code = example.read_text().split("```python\n# early_exit.py\n")[1].split("```")[0]
    names = {}
    exec(code, names)
    logits, looks = names["classify"]([str(file) for file in files], images.numpy(), threshold)
    torch.testing.assert_close(torch.tensor(logits), expected.logits, atol=1e-4, rtol=0)
    assert looks.tolist() == expected.num_glimpses.tolist()
    assert len(set(looks.tolist())) > 1


def test_stepwise_pt2_is_the_loop(tmp_path):
    from glimpsenet.inference.export import next_inputs

    run = make_run(tmp_path, policy=SpatiotemporalConfig(), sampling=BilinearConfig(), num_glimpses=2)
    images = images_of(4)
    inputs, logits = {"images": images}, []
    for file in export(run, tmp_path / "model.pt2", "pt2", stepwise=True):
        outputs = torch.export.load(file).module()(inputs)
        logits.append(outputs["logits"])
        inputs = next_inputs(inputs, outputs)
    with torch.no_grad():
        expected = run.model(run.model.normalization(images)).logits
    torch.testing.assert_close(torch.stack(logits, 1), expected, atol=1e-4, rtol=0)


def test_the_command_writes_what_it_says(tmp_path, capfd):
    run = make_run(tmp_path, num_glimpses=1)
    description = Description(run.config, run.classes, run.channels)
    write_description(tmp_path, description)
    save_weights(run.model, tmp_path)
    main(["export", str(tmp_path), "--format", "pt2"])
    file = tmp_path / "model.pt2"
    assert str(file) in capfd.readouterr().out
    extra = {METADATA: ""}
    torch.export.load(file, extra_files=extra)
    assert json.loads(extra[METADATA])["classes"] == CLASSES
    with pytest.raises(SystemExit) as caught:
        main(["export", str(tmp_path), "--out", str(tmp_path / "model.pt2")])
    assert caught.value.code == 2
    assert "a file of format onnx ends in .onnx" in capfd.readouterr().err


def test_another_operator_set_is_written_or_refused(tmp_path, monkeypatch):
    run = make_run(tmp_path, num_glimpses=1)
    (file,) = export(run, tmp_path / "model.onnx", opset=20)
    assert opset_of(file) == 20
    for opset in (17, 24):
        with pytest.raises(SettingError, match=rf"opset must be in 18\.\.23, .*, got {opset}; 18 is"):
            export(run, tmp_path / "model.onnx", opset=opset)
    with pytest.raises(SettingError, match="opset 18 is a setting of ONNX; pt2 has no operator sets"):
        export(run, tmp_path / "model.pt2", "pt2", opset=18)
    # Where torch.onnx cannot convert, it only logs that, and leaves the model as it was.
    unconverted = SimpleNamespace(model=SimpleNamespace(opset_imports={"": 18}))
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: unconverted)
    with pytest.raises(UserError, match="cannot write this model at opset 19, only at 18"):
        export(run, tmp_path / "other.onnx", opset=19)
    assert not (tmp_path / "other.onnx").exists()


def test_what_onnx_runtime_refuses_is_one_line(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"ONNX Runtime \S+ does not run the exported model: .*; choose opset 18"):
        run_onnx(tmp_path / "model.onnx", {})


def test_a_wrong_program_is_not_left_behind(tmp_path, monkeypatch):
    run = make_run(tmp_path, num_glimpses=1)
    monkeypatch.setattr(
        "glimpsenet.inference.export.run_pt2",
        lambda file, inputs: {"logits": torch.tensor(torch.nan), "windows": torch.zeros(1)},
    )
    with pytest.raises(UserError, match="'logits' differs by nan"):
        export(run, tmp_path / "model.pt2", "pt2")
    assert not list(tmp_path.iterdir())


def test_without_onnx_the_way_out_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pt2 does not.* needs .*: pip install 'glimpsenet\[export\]'"):
        export(make_run(tmp_path, num_glimpses=1), tmp_path / "model.onnx")
