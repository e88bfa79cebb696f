"""The examples do what they say: against independent computations, and as a user runs them."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import glimpsenet
from glimpsenet import cli
from glimpsenet.config import Config
from glimpsenet.data.config import DataConfig, DigitsConfig
from glimpsenet.data.digits import CLASSES, DigitScenes
from glimpsenet.data.loading import InOrder, create_loader
from glimpsenet.errors import SettingError, UserError
from glimpsenet.evaluation.accuracy import evaluate
from glimpsenet.models.config import MipmapConfig, ModelConfig
from glimpsenet.policies.config import PolicyConfig, TokenConfig
from glimpsenet.training.config import CustomObjectiveConfig, PathwiseConfig, TrainingConfig, ValueMapConfig
from glimpsenet.training.fit import fit
from glimpsenet.training.objectives import BoxSupervision

pytestmark = pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*", "ignore:Checkpoint directory .* exists")

EXAMPLES = Path(__file__).parents[1] / "examples"
CONFIG = Config(
    model=ModelConfig(
        backbone="glimpse_cnn",
        num_glimpses=3,
        image_size=40,
        glimpse_size=16,
        sampling=MipmapConfig(),
        batch_norm="separate",
        policy=TokenConfig(layer=2, scales=(0.25,)),  # 4 x 4 cells
    ),
    data=DigitsConfig(train_scenes=512, val_scenes=40),
    training=TrainingConfig(
        max_steps=4, batch_size=16, optimizer="adamw", learning_rate=1e-2, precision="float32", validations=1
    ),
)


@pytest.fixture
def example(monkeypatch):
    """Runs an example as a module of its own."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield lambda name: runpy.run_path(str(EXAMPLES / f"{name}.py"))
    sys.modules.pop("policy", None)
    PolicyConfig.kinds.pop("corners", None)
    DataConfig.kinds.pop("halves", None)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("examples") / "run"
    fit(replace(CONFIG, training=replace(CONFIG.training, objective=ValueMapConfig())), folder, device="cpu")
    return folder


def test_the_policy_looks_at_tiles_in_the_order_of_their_variance(example, run):
    images = torch.rand(5, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    images[0] = 0.5
    images[0, 0, 10:20, 30:40:2] = 1  # row 1, column 3 of 4 x 4
    images[0, 0, 30:40, 0:10:5] = 1  # row 3, column 0: fewer stripes
    model = glimpsenet.load(run)
    windows = model(images, policy=example("policy")["ContrastGlimpses"]()).windows
    assert windows[0].tolist() == [[1, 0, 0], [0.25, 0.75, -0.25], [0.25, -0.75, 0.75]]
    for image, looked in zip(images[1:].numpy(), windows[1:], strict=True):
        tiles = image[0].reshape(4, 10, 4, 10)
        order = np.argsort(-tiles.var((1, 3)).ravel())
        for step in (1, 2):
            row, column = divmod(int(order[step - 1]), 4)
            assert looked[step].tolist() == [0.25, column / 2 - 0.75, row / 2 - 0.75]


def test_the_policy_is_evaluated_beside_the_runs_own(example, run, capsys):
    example("policy")["main"](str(run))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["learned", "random", "ContrastGlimpses"]


def test_the_objective_teaches_what_the_teacher_does(margins):
    experiment = margins.EXPERIMENTS["imitation"]
    experiment.check(experiment.measure(0))


def test_an_objective_of_ones_own_is_noted_in_the_run(example, tmp_path):
    names = example("objective")
    objective = names["Imitation"](names["ContrastGlimpses"](), CONFIG.model.scale_range)
    training = replace(CONFIG.training, max_steps=1)
    fit(replace(CONFIG, training=training), tmp_path / "run", objective=objective, device="cpu")
    assert glimpsenet.load_run(tmp_path / "run").config.training.objective == CustomObjectiveConfig()


def test_the_objectives_program_runs(example, tmp_path, capsys):
    example("objective")["main"](str(tmp_path / "run"), steps=2)
    assert capsys.readouterr().out.startswith("accuracy [")
    assert glimpsenet.load_run(tmp_path / "run").config.training.objective == CustomObjectiveConfig()


def test_the_loss_of_the_objective_by_hand(example):
    names = example("objective")
    torch.manual_seed(0)
    model = glimpsenet.create_model("glimpse_cnn", num_classes=10, in_channels=1, **_settings())
    output = model(torch.rand(3, 1, 40, 40))
    teacher = names["ContrastGlimpses"]()
    objective = names["Imitation"](teacher, (0.2, 0.5))
    loss = objective(model, output, torch.zeros(3, dtype=torch.long), torch.full((3, 4), torch.nan))
    terms = []
    for step in (2, 3):
        before = output.state.before(step)
        distribution = model.policy.distribution(before)
        for image, window in enumerate(teacher(before)):
            nearest = (distribution.windows[image, :, 1:] - window[1:]).square().sum(1).argmin()
            scores = distribution.scores[image].detach().masked_fill(~distribution.allowed[image], -1e4)
            terms.append(min(50.0, -float(scores.log_softmax(0)[nearest])))
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_a_run_with_an_objective_of_ones_own_resumes_with_one_of_the_same_class(example, tmp_path):
    names = example("objective")

    def teach():
        return names["Imitation"](names["ContrastGlimpses"](), CONFIG.model.scale_range)

    def fail(*_):
        raise RuntimeError("power cut")

    config = replace(CONFIG, training=replace(CONFIG.training, validations=2))
    whole = fit(config, tmp_path / "whole", objective=teach(), device="cpu")
    out, broken = tmp_path / "run", teach()
    forward, calls = broken.forward, iter(range(10))
    broken.forward = lambda *batch: forward(*batch) if next(calls) < 3 else fail()
    with pytest.raises(RuntimeError, match="power cut"):
        fit(config, out, objective=broken, device="cpu")
    with pytest.raises(UserError, match=r"objective.kind \(it was custom, now pathwise\)"):
        fit(config, out, device="cpu", resume=True)
    with pytest.raises(UserError, match="objective BoxSupervision: the run was trained with Imitation"):
        fit(config, out, objective=BoxSupervision(CONFIG.model.scale_range), device="cpu", resume=True)
    assert fit(config, out, objective=teach(), device="cpu", resume=True)["metrics"] == whole["metrics"]


def test_custom_is_an_object(tmp_path):
    with pytest.raises(SettingError, match="objective 'custom' is an object"):
        fit(
            replace(CONFIG, training=replace(CONFIG.training, objective=CustomObjectiveConfig())),
            tmp_path / "run",
            device="cpu",
        )
    assert not (tmp_path / "run").exists()


def test_evaluate_names_a_policy_by_its_class(run):
    model = glimpsenet.load(run)
    loader = create_loader(DigitScenes(DigitsConfig(val_scenes=20), "val", 40), InOrder(20), 20)
    settings = {"scale_range": (0.2, 0.5), "image_size": 40, "classes": CLASSES}
    own = evaluate(model, loader, policy=glimpsenet.CenterGlimpses((0.2, 0.5), 16), **settings)
    assert own == evaluate(model, loader, policy="center", **settings) | {"policy": "CenterGlimpses"}


def _settings() -> dict:
    model = CONFIG.model
    names = ("num_glimpses", "image_size", "glimpse_size", "sampling", "policy")
    return {name: getattr(model, name) for name in names}


def test_a_policy_of_ones_own_learns_and_is_loaded_by_its_name(example, tmp_path, capsys):
    names = example("learned_policy")
    names["main"](str(tmp_path / "run"), steps=2)
    assert capsys.readouterr().out.startswith("CornerPolicy accuracy [")
    run = glimpsenet.load_run(tmp_path / "run")
    assert run.config.model.policy == names["CornersConfig"](scale=0.5)
    windows = run.model(torch.rand(2, 1, 80, 80)).windows[:, 1:]
    assert (windows[..., 0] == 0.5).all()
    assert windows[..., 1:].abs().unique().tolist() in ([0.0], [0.5], [0.0, 0.5])
    del PolicyConfig.kinds["corners"]
    with pytest.raises(UserError, match="no policy 'corners'"):
        glimpsenet.load_run(tmp_path / "run")


def test_a_kind_of_data_of_ones_own_is_trained_and_measured_on(example, tmp_path, capsys):
    example("data_kind")["main"](str(tmp_path / "run"), steps=2)
    assert capsys.readouterr().out.startswith("['left', 'right'] accuracy [")
    cli.main(["evaluate", str(tmp_path / "run"), "--policy", "oracle"])
    assert "64 test images" in capsys.readouterr().out


def test_a_model_of_ones_own_is_trained_and_loaded_into_one_like_it(tmp_path):
    class Twice(glimpsenet.Policy):
        """Looks where it is told, which it learns."""

        def __init__(self):
            super().__init__()
            self.place = torch.nn.Parameter(torch.tensor([0.1, -0.1]))

        def choose(self, state):
            scale = torch.full((len(state.images), 1), 0.4)
            return torch.cat([scale, self.place.tanh().expand(len(scale), 2) * 0.6], 1)

    def build(**settings):
        torch.manual_seed(0)
        model = glimpsenet.create_model("glimpse_cnn", num_classes=10, in_channels=1, **{**_settings(), **settings})
        model.policy = Twice()
        return model

    config = replace(CONFIG, training=replace(CONFIG.training, objective=PathwiseConfig()))
    summary = fit(config, tmp_path / "run", model=build(), device="cpu")
    run = glimpsenet.load_run(tmp_path / "run", model=build())
    assert run.config.model.policy.kind == "custom"
    assert not torch.equal(run.model.policy.place, build().policy.place)
    assert summary["metrics"]["mean_scale"][1:] == pytest.approx([0.4, 0.4])
    with pytest.raises(SettingError, match=r"load_run\(..., model=...\)"):
        glimpsenet.load_run(tmp_path / "run")
    with pytest.raises(SettingError, match="the model has num_glimpses 4, the configuration 3"):
        fit(config, tmp_path / "other", model=build(num_glimpses=4), device="cpu")
