import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from glimpsenet.config import Config
from glimpsenet.data.config import DigitsConfig
from glimpsenet.models.build import build_model
from glimpsenet.models.config import ModelConfig
from glimpsenet.policies.baselines import CenterGlimpses
from glimpsenet.policies.config import SpatiotemporalConfig
from glimpsenet.policies.localization import LocalizationNetwork
from glimpsenet.training import statistics
from glimpsenet.training.config import TrainingConfig
from glimpsenet.training.fit import fit
from glimpsenet.training.statistics import LocalizationStatistics, observe, summarize
from glimpsenet.training.task import GlimpseTask

pytestmark = pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*", "ignore:Checkpoint directory .* exists")

MODEL = ModelConfig(backbone="glimpse_cnn", num_glimpses=3, image_size=20, glimpse_size=8)
TRAINING = TrainingConfig(
    max_steps=10,
    batch_size=4,
    optimizer="adamw",
    learning_rate=3e-3,
    precision="float32",
    validations=2,
    gradient_clip=1e-4,
)
CONFIG = Config(model=MODEL, data=DigitsConfig(train_scenes=32, val_scenes=8), training=TRAINING)


def train(out: Path, config: Config = CONFIG, resume: bool = False) -> list[dict[str, str]]:
    fit(config, out, device="cpu", resume=resume)
    with open(out / "localization.csv", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, list[dict[str, str]], list[torch.Tensor]]:
    """A run, its rows, and the gradients of fc.bias as they were right after each backward pass."""
    gradients = []

    class Spying(GlimpseTask):
        def on_after_backward(self) -> None:
            gradients.append(self.model.policy.get_parameter("fc.bias").grad.clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glimpsenet.training.fit.GlimpseTask", Spying)
        patch.setattr(statistics, "GlimpseTask", Spying)
        out = tmp_path_factory.mktemp("runs") / "digits"
        return out, train(out), gradients


STEPS = (1, 5, 10)


def test_every_tensor_and_output_has_a_row_in_the_first_and_in_every_fifth_step(run):
    _, rows, _ = run
    parameters, outputs = ["fc.weight", "fc.bias"], ["s_2", "tx_2", "ty_2", "s_3", "tx_3", "ty_3"]
    kinds = {"weight": parameters, "gradient": parameters, "gradient_before_rescaling": parameters, "output": outputs}
    wanted = {(str(step), kind, name) for step in STEPS for kind, names in kinds.items() for name in names}
    assert len(rows) == len(wanted)
    assert {(row["step"], row["kind"], row["name"]) for row in rows} == wanted
    smallest, largest = MODEL.scale_range
    for row in rows:
        assert float(row["min"]) <= float(row["mean"]) <= float(row["max"])
        if row["name"].startswith("s_"):
            assert smallest <= float(row["min"]) <= float(row["max"]) <= largest


def test_gradients_are_those_before_clipping_and_before_rescaling_fifty_times_as_large(run):
    _, rows, gradients = run
    for row in rows:
        if row["kind"] == "gradient" and row["name"] == "fc.bias":
            values = gradients[int(row["step"]) - 1]
            assert values.norm() > 1e-4  # clipping to this would show
            assert float(row["max"]) == pytest.approx(float(values.max()), rel=1e-6)
            assert float(row["mean"]) == pytest.approx(float(values.mean()), rel=1e-5, abs=1e-9)
    after = [row for row in rows if row["kind"] == "gradient"]
    before = [row for row in rows if row["kind"] == "gradient_before_rescaling"]
    for one, other in zip(after, before, strict=True):
        assert float(other["std"]) == pytest.approx(50 * float(one["std"]), rel=1e-5)


def test_tensorboard_has_scalars_and_histograms(run):
    out, rows, _ = run
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"histograms": 0, "scalars": 0}).Reload()
    value = events.Scalars("localization/output/tx_3/std")[2].value
    (row,) = [row for row in rows if (row["step"], row["name"]) == ("10", "tx_3")]
    assert value == pytest.approx(float(row["std"]), rel=1e-6)
    histogram = events.Histograms("localization/output/tx_3")[2].histogram_value
    assert sum(histogram.bucket) == histogram.num == TRAINING.batch_size
    assert histogram.max == pytest.approx(float(row["max"]))


def test_training_is_the_same_bit_for_bit_without_and_there_is_no_file(run, tmp_path):
    silent = replace(CONFIG, training=replace(TRAINING, log_localization_statistics=False))
    fit(silent, tmp_path / "off", device="cpu")
    assert not (tmp_path / "off/localization.csv").exists()
    one, other = (safetensors.torch.load_file(out / "model.safetensors") for out in (run[0], tmp_path / "off"))
    assert all(torch.equal(one[name], other[name]) for name in one | other)
    assert (run[0] / "metrics.csv").read_bytes() == (tmp_path / "off/metrics.csv").read_bytes()


def test_an_interrupted_run_ends_with_the_file_of_an_uninterrupted_one(run, tmp_path, monkeypatch):
    append = LocalizationStatistics._append

    def power_cut(self, step, *arguments):
        append(self, step, *arguments)
        if step == 10:  # the last checkpoint is of step 5
            with open(self.file, "a") as stream:
                stream.write("10,output,s_2,0.")
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(LocalizationStatistics, "_append", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            train(tmp_path / "cut")
    assert train(tmp_path / "cut", resume=True) == run[1]


def test_the_spatiotemporal_network_shows_its_attention():
    torch.manual_seed(0)
    model = build_model(replace(MODEL, policy=SpatiotemporalConfig()), num_classes=3, in_channels=1)
    output = model(torch.rand(4, 1, 20, 20))
    output.logits.sum().backward()
    names = [one.name for one in observe(model.policy, output.windows.detach()) if one.kind == "gradient"]
    assert names == [name for name, _ in model.policy.named_parameters()]
    assert {"attention.in_proj_weight", "fc.weight"} < set(names)


def test_a_policy_without_parameters_has_outputs_only():
    kinds = {one.kind for one in observe(CenterGlimpses((0.2, 0.5), 8), torch.zeros(2, 3, 3))}
    assert kinds == {"output"}


def test_no_gradient_is_divided_by_a_factor_of_zero():
    network = LocalizationNetwork(4, (0.2, 0.5), gradient_factor=0.0)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert {one.kind for one in observe(network, torch.zeros(2, 1, 3))} == {"weight", "gradient"}


def test_summary_by_hand_and_infinite_values_are_written_as_such(tmp_path):
    assert summarize(torch.tensor([[1.0, 2.0], [3.0, 6.0]])).tolist() == pytest.approx([1, 6, 3, math.sqrt(3.5)])
    assert summarize(torch.tensor([1.0, math.inf]))[1] == math.inf
