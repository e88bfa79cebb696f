"""Margins of the tests that train: ten seeds of each trained quantity, compared with the bounds that its test asserts.

The suite runs seed 0 of the same functions (fixture ``margins`` in ``tests/conftest.py``). A test checks that the
record has the bounds of this file, and that the worst of the ten seeds lies a standard deviation inside them.

Command: ``python benchmarks/margins.py [EXPERIMENT ...] [--seeds 10]``; adds to benchmarks/results/test-margins.json.
With ``ATEN_CPU_CAPABILITY=default`` or ``ONEDNN_MAX_CPU_ISA=SSE41`` set, adds to the record of that instruction set.
"""

import argparse
import io
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import glimpsenet
from glimpsenet import cli, create_model
from glimpsenet.bench import contenders
from glimpsenet.bench.subjects import build_subject
from glimpsenet.bench.training import training_step
from glimpsenet.config import Config
from glimpsenet.data.config import DigitsConfig
from glimpsenet.data.digits import CLASSES, DigitScenes
from glimpsenet.data.loading import InOrder, create_loader
from glimpsenet.data.streams import FreshStream
from glimpsenet.evaluation.accuracy import evaluate
from glimpsenet.files import write_json
from glimpsenet.losses import glimpse_loss
from glimpsenet.models.build import build_model
from glimpsenet.models.config import MipmapConfig, ModelConfig
from glimpsenet.models.glimpsenet import GlimpseNet, GlimpseOutput
from glimpsenet.policies.baselines import FixedGlimpses
from glimpsenet.policies.config import LinearConfig, TokenConfig
from glimpsenet.policies.token import TokenPolicy
from glimpsenet.provenance import common_machine, describe_machine
from glimpsenet.robustness.attacks import PGD, Answers, AutoAttackPart, answer_loss, auto_attack, pgd, score_loss
from glimpsenet.training import objectives
from glimpsenet.training.config import TrainingConfig
from glimpsenet.training.fit import fit
from glimpsenet.training.penalties import overlap_penalty, scale_penalty

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
INSTRUCTION_SETS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
"""Variables that choose one."""
RANGE = (0.2, 0.5)
UNKNOWN = torch.full((8, 4), torch.nan)
"""Boxes of eight images."""

Values = dict[str, float]


@dataclass(frozen=True)
class Experiment:
    """A training, and the open intervals in which its test wants the numbers that come of it."""

    measure: Callable[[int], Values]
    bounds: Mapping[str, tuple[float | None, float | None]]

    def check(self, values: Values) -> None:
        """Whether every number that has bounds lies within them.

        Raises:
            AssertionError: naming the first that does not.
        """
        for name, (low, high) in self.bounds.items():
            value = values[name]
            assert low is None or value > low, f"{name} is {value:g}, not above {low:g}"
            assert high is None or value < high, f"{name} is {value:g}, not below {high:g}"


# ---- the classifier ------------------------------------------------------------------------------------------------


def learn_digits(seed: int) -> Values:
    """Accuracy on digits without clutter after 200 small steps; chance is 0.1."""
    torch.manual_seed(seed)
    easy = DigitsConfig(train_scenes=4096, val_scenes=300, num_clutter=0)
    settings = {"image_size": 32, "glimpse_size": 12, "sampling": MipmapConfig(), "batch_norm": "separate"}
    model = create_model(
        "glimpse_cnn", num_classes=10, in_channels=1, num_glimpses=2, scale_range=(0.4, 0.8), **settings
    )
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=200)
    train = DigitScenes(easy, "train", canvas=32)
    batches = iter(create_loader(train, FreshStream(len(train), seed=seed), 32))
    for _ in range(200):
        batch = next(batches)
        loss = glimpse_loss(model(model.normalization(batch.images)), batch.labels, 0.6)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        schedule.step()
    loader = create_loader(DigitScenes(easy, "val", canvas=32), InOrder(300), 100)
    result = evaluate(model, loader, scale_range=(0.4, 0.8), image_size=32, classes=CLASSES)
    return {"accuracy": result["accuracy"][-1]}


# ---- objectives ----------------------------------------------------------------------------------------------------


def small_model(seed: int, **settings: Any) -> GlimpseNet:
    """For images of 32 pixels, 3 glimpses of 8."""
    torch.manual_seed(seed)
    own = {"image_size": 32, "glimpse_size": 8, "sampling": MipmapConfig(), "num_glimpses": 3}
    tokens = {"policy": TokenConfig(layer=1, scales=(0.25,))}
    return create_model("glimpse_cnn", num_classes=2, in_channels=1, **{**own, **tokens, **settings})


def covers(windows: Tensor) -> Tensor:
    """1 for windows whose centre lies in the upper left quarter."""
    return ((windows[..., 1] < 0) & (windows[..., 2] < 0)).float()


def find_the_reward(kind: str, seed: int) -> Values:
    """The lead of the best window in the quarter that pays over the best elsewhere, in scores; least of 8 images."""
    net = small_model(seed, batch_norm="separate")

    def reward(output: GlimpseOutput, labels: Tensor) -> Tensor:
        return covers(output.windows[:, 1:])

    objective = {
        "gradient": lambda: objectives.PolicyGradient(RANGE, reward, net.classifier.in_features),
        "map": lambda: objectives.ValueMap(RANGE, reward),
        "boxes": lambda: objectives.BoxSupervision(RANGE),
    }[kind]()
    optimizer = torch.optim.Adam([*net.policy.parameters(), *objective.parameters()], 0.01)
    # Bright in the corner that pays, so that there is something to see.
    images, labels = torch.rand(8, 1, 32, 32) * 0.2, torch.zeros(8, dtype=torch.long)
    images[:, :, :16, :16] += 1
    boxes = torch.tensor([[0.0, 0.0, 6.0, 6.0]]).expand(8, 4)
    for _ in range(60):
        output = net(images, policy=objective.behaviour(net, 0.3, labels, boxes))
        loss = objective(net, output, labels, boxes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        state, policy = net.eval()(images).state, net.policy
        assert isinstance(policy, TokenPolicy)
        distribution = policy.distribution(state.before(2))
        inside = covers(distribution.windows).bool()
        scores = distribution.scores
        lead = scores.masked_fill(~inside, -torch.inf).amax(1) - scores.masked_fill(inside, -torch.inf).amax(1)
    return {"lead": float(lead.min())}


def follow_guidance(seed: int) -> Values:
    """Distance of windows from the place that a judge likes best, after 40 steps of :class:`Guidance`."""

    def judge(model: Any, images: Tensor, windows: Tensor, labels: Tensor) -> Tensor:
        return -(windows[..., 1:] + 0.6).square().sum(-1)

    own, contenders.judge = contenders.judge, judge
    try:
        output = _train_policy(seed, contenders.Guidance(RANGE, candidates=32), steps=40)[-1]
    finally:
        contenders.judge = own
    return {"distance": float((output[:, 1:, 1:] + 0.6).abs().max())}


def shrink_by_penalty(seed: int) -> Values:
    """Mean s of windows, of what they can shrink by: what is left of it after 30 steps of the scale penalty alone."""
    windows = _train_policy(seed, objectives.Pathwise(RANGE, scale_weight=1.0), steps=30)
    before, after = (float(scale_penalty(seen)) - RANGE[0] for seen in (windows[0], windows[-1]))
    return {"left": after / before}


def part_by_penalty(seed: int) -> Values:
    """Overlap before and after 30 steps of the overlap penalty alone: no bounds, for it falls on some seeds only."""
    windows = _train_policy(seed, objectives.Pathwise(RANGE, overlap_weight=1.0), steps=30)
    return {"before": float(overlap_penalty(windows[0])), "after": float(overlap_penalty(windows[-1]))}


def _train_policy(seed: int, objective: objectives.Objective, steps: int) -> list[Tensor]:
    """Windows at every step of a linear localization network that learns by ``objective`` alone."""
    net, seen = small_model(seed, policy=LinearConfig(gradient_factor=1.0)), []
    images, labels = torch.rand(8, 1, 32, 32), torch.zeros(8, dtype=torch.long)
    optimizer = torch.optim.Adam(net.policy.parameters(), 0.05)
    for _ in range(steps):
        output = net(images, policy=objective.behaviour(net, 0.0, labels, UNKNOWN))
        seen.append(output.windows.detach())
        optimizer.zero_grad()
        objective(net, output, labels, UNKNOWN).backward()
        optimizer.step()
    return seen


IMITATION = Config(
    model=ModelConfig(
        backbone="glimpse_cnn",
        num_glimpses=3,
        image_size=40,
        glimpse_size=16,
        sampling=MipmapConfig(),
        batch_norm="separate",
        policy=TokenConfig(layer=2, scales=(0.25,)),  # 4 x 4 cells
    ),
    data=DigitsConfig(train_scenes=5000, val_scenes=40, num_clutter=0),
    training=TrainingConfig(
        max_steps=80, batch_size=32, optimizer="adamw", learning_rate=5e-3, precision="float32", validations=1
    ),
)
"""Of the run that imitates."""


def imitate(seed: int) -> Values:
    """Share of first windows that are the teacher's, before and after ``examples/objective.py``; 1 in 16 by chance."""
    names = _example("objective")
    teacher = names["ContrastGlimpses"]()
    objective = names["Imitation"](teacher, IMITATION.model.scale_range)
    with tempfile.TemporaryDirectory() as folder:
        fit(replace(IMITATION, seed=seed), Path(folder) / "run", objective=objective, device="cpu")
        run = glimpsenet.load_run(Path(folder) / "run")
    torch.manual_seed(seed)
    scenes = create_loader(DigitScenes(DigitsConfig(val_scenes=100, num_clutter=0), "val", 40), InOrder(100), 100)
    images = next(iter(scenes)).images
    values = {}
    for name, model in (("before", run.build().eval()), ("after", run.model)):
        with torch.inference_mode():
            normal = model.normalization(images)
            own, wanted = (model(normal, policy=policy).windows[:, 1, 1:] for policy in (None, teacher))
        values[name] = float(torch.isclose(own, wanted).all(1).double().mean())
    return values


def _example(name: str) -> dict[str, Any]:
    """What an example defines; it imports its neighbours."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        return runpy.run_path(str(ROOT / f"examples/{name}.py"))
    finally:
        sys.path.remove(str(ROOT / "examples"))
        sys.modules.pop("policy", None)


# ---- attacks -------------------------------------------------------------------------------------------------------

EPS = 16 / 255
SOUND = PGD(eps=EPS, step=EPS / 4, steps=10, restarts=2)
PARTS: tuple[AutoAttackPart, ...] = ("apgd-ce", "apgd-t", "square")


def draw_quarters(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images and labels: a brighter quarter of four is the class; the pixels are noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    images = 0.1 + 0.5 * torch.rand(count, 1, 32, 32, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = divmod(label, 2)
        image[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += 0.12
    return images.clamp(0, 1), labels


def read_quarters(seed: int, **settings: Any) -> GlimpseNet:
    """A model that reads such images; seconds."""
    torch.manual_seed(seed)
    config = ModelConfig(
        backbone="glimpse_cnn", image_size=32, glimpse_size=8, num_glimpses=2, sampling=MipmapConfig(), **settings
    )
    model = build_model(config, num_classes=4, in_channels=1)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(60):
        images, labels = draw_quarters(32, 1000 * seed + 100 + step)
        optimizer.zero_grad()
        glimpse_loss(model(model.normalization(images)), labels, 0.3).total.backward()
        optimizer.step()
    return model.eval()


def attack(answers: Answers, settings: PGD, count: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels and what PGD makes of the images."""
    images, labels = draw_quarters(count, 7)
    generator = torch.Generator().manual_seed(0)
    return images, labels, pgd(answers, answer_loss(answers), images, labels, settings, generator)


def withstand(model: GlimpseNet) -> Values:
    """Accuracy of :func:`read_quarters`'s model on clean and noisy images and under attacks of growing bounds."""
    answers = Answers(model, 2)
    images, labels, attacked = attack(answers, SOUND)

    def accuracy(tried: Tensor) -> float:
        return float(answers.right(tried, labels).double().mean())

    noise = EPS * torch.randn(images.shape, generator=torch.Generator().manual_seed(1)).sign()
    values = {
        "clean": accuracy(images),
        "noise": accuracy((images + noise).clamp(0, 1)),
        "attacked": accuracy(attacked),
    }
    for eps in (4, 16, 255):
        settings = replace(SOUND, eps=eps / 255, step=min(eps / 4, 8) / 255, steps=30)
        values[f"attacked within {eps}/255"] = accuracy(attack(answers, settings)[2])
    values["lost between 4/255 and 16/255"] = values["attacked within 4/255"] - values["attacked within 16/255"]
    one, (images, labels) = Answers(model, 1), draw_quarters(6, 7)
    for part in PARTS:
        tried = auto_attack(one, images, labels, [part], eps=EPS, queries=100, targets=1)
        lost = one.right(images, labels).sum() - one.right(tried, labels).sum()
        values[f"found by {part}, of 6"] = float(lost)
    return values


def score_windows(seed: int) -> Values:
    """The score loss of 2,000 draws against the expectation over all windows: value, and slope along one direction.

    The slope's error is told in shares of the true slope, or of 0.08 where that is smaller.
    """
    answers = Answers(read_quarters(seed, policy=TokenConfig(layer=-1)), 2)
    policy = answers.model.policy
    assert isinstance(policy, TokenPolicy)
    policy.stop_gradient = False
    images, labels = draw_quarters(1, 5)
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))

    def expectation(step: float) -> float:
        moved = answers.model.normalization(images + step * direction)
        with torch.no_grad():
            distribution = policy.distribution(answers.model(moved).state.before(2))
            total = 0.0
            for window, chance in zip(distribution.windows[0], distribution.log_probabilities[0].exp(), strict=True):
                fixed = FixedGlimpses({1: (1.0, 0.0, 0.0), 2: window}, policy)
                logits = answers.model(moved, policy=fixed).logits[:, -1]
                total += float(chance * F.cross_entropy(logits, labels))
        return total

    slope = (expectation(2e-3) - expectation(-2e-3)) / 4e-3
    moved = images.clone().requires_grad_()
    torch.manual_seed(seed)
    loss = score_loss(answers, draws=2000)(moved, labels)
    (gradient,) = torch.autograd.grad(loss.sum(), moved)
    found, expected = float((gradient * direction).sum()), expectation(0)
    return {
        "error of the value": abs(loss.item() - expected) / expected,
        "error of the slope": abs(found - slope) / max(abs(slope), 0.08),
    }


# ---- the same training in two ways ---------------------------------------------------------------------------------


def train_in_modes(seed: int) -> Values:
    """Losses of four steps, eager and fast: how they differ, and what of the first the last is.

    In float64: batch norms of four images amplify rounding with every update.
    """
    settings = {"backbone": "glimpse_cnn", "image_size": 32, "glimpse_size": 8, "num_glimpses": 3}
    config = Config(seed=seed, model=ModelConfig(**settings, sampling=MipmapConfig(), batch_norm="separate"))
    subject = build_subject(config, 1, torch.device("cpu"))
    subject.model.double()
    images, labels, boxes = torch.rand(4, 1, 32, 32).double(), torch.arange(4), torch.rand(4, 4)
    losses = {}
    for mode in ("eager", "fast"):
        step = training_step(subject, mode, torch.float32, learning_rate=0.01)
        losses[mode] = [step(images, labels, boxes) for _ in range(4)]
    pairs = zip(losses["eager"], losses["fast"], strict=True)
    return {
        "difference": max(abs(fast - eager) / eager for eager, fast in pairs),
        "left of the loss": losses["eager"][-1] / losses["eager"][0],
    }


def train_in_processes(seed: int) -> Values:
    """Two processes against one with the same global batch, and against one with a process's own batch.

    A backbone without batch statistics, plain SGD, and nothing drawn at random: what is left is the order in which
    gradients are added up.
    """
    model = ["--backbone", "test_convnext", "--image-size", "64", "--glimpse-size", "32"]
    data = ["--train-scenes", "64", "--val-scenes", "11"]
    learn = ["--precision", "float32", "--max-steps", "2", "--validations", "2"]
    optimizer = ["--optimizer", "sgd", "--learning-rate", "0.05", "--seed", str(seed), "--device", "cpu"]
    with tempfile.TemporaryDirectory() as folder:

        def run(name: str, *split: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
            out = Path(folder) / name
            command = ["train", "digits-pathwise", *model, *data, *learn, *optimizer, *split, "--out", str(out)]
            if "--devices" in split:  # its second process is started by the command again
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                words = [sys.executable, "-m", "glimpsenet", *command]
                done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
                assert done.returncode == 0, done.stderr[-2000:]
            else:
                with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                    cli.main(command)
            state = torch.load(out / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
            return state, json.loads((out / "summary.json").read_text())["metrics"]

        def difference(name: str) -> float:
            return max(float((states[name][key] - states["two"][key]).abs().max()) for key in states["two"])

        runs = {
            "two": run("two", "--batch-size", "4", "--devices", "2"),
            "same": run("same", "--batch-size", "8"),
            "half": run("half", "--batch-size", "4"),
        }
    states = {name: state for name, (state, _) in runs.items()}
    metrics = {name: values for name, (_, values) in runs.items()}
    losses = zip(metrics["same"]["loss"], metrics["two"]["loss"], strict=True)
    return {
        "difference of weights": difference("same"),
        "difference from half the batch": difference("half"),
        "difference of losses": max(abs(one - two) / one for one, two in losses),
    }


EXPERIMENTS = {
    "learn-digits": Experiment(learn_digits, {"accuracy": (0.6, None)}),
    "gradient": Experiment(partial(find_the_reward, "gradient"), {"lead": (0, None)}),
    "map": Experiment(partial(find_the_reward, "map"), {"lead": (0, None)}),
    "boxes": Experiment(partial(find_the_reward, "boxes"), {"lead": (0, None)}),
    "guidance": Experiment(follow_guidance, {"distance": (None, 0.2)}),
    "scale-penalty": Experiment(shrink_by_penalty, {"left": (None, 0.25)}),
    "overlap-penalty": Experiment(part_by_penalty, {}),
    "imitation": Experiment(imitate, {"before": (None, 0.15), "after": (0.35, None)}),
    "attacks": Experiment(
        lambda seed: withstand(read_quarters(seed)),
        {
            "clean": (0.9, None),
            "noise": (0.9, None),
            "attacked": (None, 0.5),
            "attacked within 255/255": (None, 0.05),
            "lost between 4/255 and 16/255": (0.3, None),
            **{f"found by {part}, of 6": (0, None) for part in PARTS},
        },
    ),
    "score-loss": Experiment(score_windows, {"error of the value": (None, 0.05), "error of the slope": (None, 0.25)}),
    "modes": Experiment(train_in_modes, {"difference": (None, 1e-9), "left of the loss": (None, 1)}),
    "processes": Experiment(
        train_in_processes,
        {
            "difference of weights": (None, 1e-6),
            "difference from half the batch": (1e-3, None),
            "difference of losses": (None, 1e-4),
        },
    ),
}


# ---- the record ----------------------------------------------------------------------------------------------------


def summarize(experiment: Experiment, measured: Sequence[Values]) -> dict[str, Any]:
    """Values of every quantity by seed, its bounds, and by how many deviations the worst seed lies within them."""
    summary = {}
    for name in measured[0]:
        values = [found[name] for found in measured]
        low, high = experiment.bounds.get(name, (None, None))
        rooms = [min(values) - low] if low is not None else []
        rooms += [high - max(values)] if high is not None else []
        summary[name] = {
            "low": low,
            "high": high,
            "values": values,
            "deviation": statistics.stdev(values),
            "room": min(rooms) if rooms else None,
        }
    return summary


def records() -> list[Path]:
    """Of every instruction set that was measured."""
    return sorted(RESULTS.glob("test-margins*.json"))


def record_file() -> Path:
    """Where this process's results go: one file an instruction set."""
    chosen = [os.environ[variable].lower() for variable in INSTRUCTION_SETS if variable in os.environ]
    return RESULTS / f"{'-'.join(['test-margins', *chosen])}.json"


def record(name: str, quantities: Mapping[str, Any], seeds: int) -> None:
    """Put one experiment's result into the record, in the place of an older one."""
    file = record_file()
    found = json.loads(file.read_text())["experiments"] if file.exists() else {}
    found[name] = {"machine": describe_machine(torch.device("cpu")), "quantities": quantities}
    variables = [f"{variable}={os.environ[variable]}" for variable in INSTRUCTION_SETS if variable in os.environ]
    result = {
        "command": " ".join([*variables, f"python benchmarks/margins.py --seeds {seeds}"]),
        "seeds": list(range(seeds)),
        "machine": common_machine([experiment["machine"] for experiment in found.values()]),
        "experiments": dict(sorted(found.items())),
    }
    write_json(file, result)


def main() -> None:
    """Measure, and add to the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help=f"of {', '.join(EXPERIMENTS)}; all if none")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in arguments.names or EXPERIMENTS:
        measured = [EXPERIMENTS[name].measure(seed) for seed in range(arguments.seeds)]
        summary = summarize(EXPERIMENTS[name], measured)
        for quantity, found in summary.items():
            values = " ".join(f"{value:.3g}" for value in found["values"])
            print(f"{name}, {quantity} ({found['low']} to {found['high']}): {values}", flush=True)
        record(name, summary, arguments.seeds)


if __name__ == "__main__":
    main()
