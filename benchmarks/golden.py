"""Golden values: pins the outputs of every model, so that refactoring changes no number.

    write:    every case on this checkout  ->  tests/golden/models.json, which the tests compare at 1e-5
    dump:     the same, with all digits, to a file
    compare:  two commits on this machine, bit for bit: checks out both, and each dumps its values

A case is a model of a recipe, a policy or a variant, with weights and images that are the same on every processor
(drawn by NumPy, not by torch's vectorised generators), and its outputs: logits and windows of a deterministic pass, and
for each objective, loss and gradient norms of a training step.

Command: ``python benchmarks/golden.py write``, ``... dump FILE``, ``... compare COMMIT COMMIT``
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glimpsenet.bench.localization import METHODS
from glimpsenet.config import Config
from glimpsenet.losses import glimpse_loss
from glimpsenet.models.build import build_model
from glimpsenet.models.config import (
    AttentionConfig,
    BilinearConfig,
    LinearizedConfig,
    MeanConfig,
    MipmapConfig,
    ModelConfig,
    NoClueConfig,
    NoFusionConfig,
    PositionalClueConfig,
)
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.policies.base import Policy
from glimpsenet.policies.baselines import CenterGlimpses, FixedGlimpses, OracleGlimpses, RandomGlimpses
from glimpsenet.policies.config import LinearConfig, SpatiotemporalConfig, TokenConfig
from glimpsenet.recipes import RECIPES, digits

PINNED = Path("tests/golden/models.json")
BATCH, CLASSES = 2, 5
TOLERANCE = 1e-5
"""Of float32 numbers across instruction sets, relative to 1 or to the number itself if that is larger."""
Numbers = dict[str, Any]
Compute = Callable[[GlimpseNet, ModelConfig], Numbers]
SMALL = ModelConfig(backbone="glimpse_cnn", image_size=40, glimpse_size=10, num_glimpses=3)
"""What variants change one setting of."""
VARIANTS: dict[str, dict[str, Any]] = {
    "sampling-bilinear-edges": {"sampling": BilinearConfig(align_corners=False)},
    "sampling-mipmap": {"sampling": MipmapConfig()},
    "sampling-linearized": {"sampling": LinearizedConfig()},
    "clue-positional": {"clue": PositionalClueConfig()},
    "clue-positional-with-scale": {"clue": PositionalClueConfig(with_scale=True)},
    "clue-none": {"clue": NoClueConfig()},
    "fusion-mean": {"fusion": MeanConfig()},
    "fusion-none": {"fusion": NoFusionConfig()},
    "fusion-four-heads": {"clue": PositionalClueConfig(), "fusion": AttentionConfig(num_heads=4)},
    "norms-separate": {"batch_norm": "separate"},
    "localization-spatiotemporal": {"policy": SpatiotemporalConfig()},
    "localization-tokens": {"policy": TokenConfig(scales=(0.2, 0.4))},
    "localization-tokens-subcells": {"policy": TokenConfig(layer=1, subcells=2)},
    "localization-tokens-free": {"policy": TokenConfig(max_overlap=1.0)},
    "localization-gaussian": {"policy": LinearConfig(noise=0.5)},
    "glimpse-ensemble": {"glimpse_ensemble": True},
    "no-auxiliary": {"auxiliary_classifier": False},
    "one-glimpse": {"num_glimpses": 1},
    "frozen": {"freeze_backbone": True},
}


def fill(model: nn.Module) -> None:
    """The same weights on every processor: NumPy's normal draws scaled by the number of inputs, norms near one."""
    random = np.random.default_rng(0)
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                continue
            values = random.standard_normal(tensor.shape).astype(np.float32)
            if tensor.ndim > 1:
                values *= tensor[0].numel() ** -0.5
            else:
                values = 1 + 0.1 * values if "weight" in name or "running_var" in name else 0.1 * values
            tensor.copy_(torch.from_numpy(np.asarray(values)))


def smooth(count: int, channels: int, size: int) -> Tensor:
    """Images in 0..1 without noise: a rounding error of a window must not become a step in the glimpse."""
    random = np.random.default_rng(1)
    ticks = np.linspace(0, 1, size, dtype=np.float64)
    waves = np.zeros((count, channels, size, size))
    for _ in range(6):
        across, down, shift = random.uniform(1, 9, (3, count, channels, 1, 1))
        waves += np.sin(across * ticks[None, None, None, :] + down * ticks[None, None, :, None] + shift)
    return torch.from_numpy((0.5 + waves / 12).astype(np.float32))


def _boxes(size: int) -> Tensor:
    return torch.tensor([[0.1, 0.2, 0.4, 0.4], [0.5, 0.55, 0.7, 0.9]]) * size


def forward(policy: Callable[[ModelConfig], Policy | None] = lambda _: None) -> Compute:
    """A deterministic pass under the model's own policy, or another."""

    def compute(model: GlimpseNet, config: ModelConfig) -> Numbers:
        model.eval()
        images = smooth(BATCH, len(model.normalization.mean), config.image_size)
        with torch.no_grad():
            output = model(model.normalization(images), policy=policy(config))
        return {"logits": output.logits.tolist(), "windows": output.windows.tolist()}

    return compute


def training_step(config: Config, *, draws: bool) -> Compute:
    """Losses and gradient norms of one step in training mode; windows are drawn by NumPy, or by the objective."""

    def compute(model: GlimpseNet, _: ModelConfig) -> Numbers:
        objective = config.training.objective.build(model, config.model.scale_range).double()
        fill(objective)
        # In double precision: a rounding error must not switch a ReLU, which a gradient would show.
        model.double().train()
        images = smooth(BATCH, len(model.normalization.mean), config.model.image_size).double()
        labels, boxes = torch.tensor([1, 3]), _boxes(config.model.image_size)
        random = np.random.default_rng(2)
        low, high = (0.2, -0.5, -0.5), (0.5, 0.5, 0.5)
        windows = {
            glimpse: torch.from_numpy(random.uniform(low, high, (BATCH, 3)).astype(np.float32))
            for glimpse in range(2, config.model.num_glimpses + 1)
        }
        torch.manual_seed(0)
        behaviour = None if objective.pathwise else FixedGlimpses(windows, model.policy)
        if draws:
            behaviour = objective.behaviour(model, 0.5, labels, boxes)
        output = model(model.normalization(images), policy=behaviour)
        loss = glimpse_loss(output, labels, config.training.auxiliary_weight)
        beside = objective(model, output, labels, boxes)
        (loss.total + objective.weight * beside).backward()
        norms = {
            part: float(torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None]))
            for part, module in model.named_children()
            if any(p.grad is not None for p in module.parameters())
        }
        return {"loss": loss.total.item(), "objective": beside.item(), "gradient_norms": norms}

    return compute


def cases() -> Iterator[tuple[str, ModelConfig, Compute]]:
    """Name, model and what is computed of it."""
    for name, recipe in RECIPES.items():
        yield f"recipe/{name}", replace(recipe().model, pretrained=False), forward()
    for name, settings in VARIANTS.items():
        yield f"variant/{name}", replace(SMALL, **settings), forward()
    policies: dict[str, Callable[[ModelConfig], Policy | None]] = {
        "random": lambda c: RandomGlimpses(c.scale_range, seed=3),
        "center": lambda c: CenterGlimpses(c.scale_range, c.glimpse_size),
        "oracle": lambda c: OracleGlimpses(c.scale_range, _boxes(c.image_size)),
        "fixed": lambda c: FixedGlimpses({2: (0.3, 0.2, -0.4)}, CenterGlimpses(c.scale_range, c.glimpse_size)),
    }
    for name, policy in policies.items():
        yield f"policy/{name}", SMALL, forward(policy)
    base = digits()
    tiny = replace(base, model=replace(base.model, image_size=40, glimpse_size=10, num_glimpses=3))
    for name, (change, _) in METHODS.items():
        config = change(tiny)
        case = f"objective/{name}"
        yield case, config.model, training_step(config, draws=case in UNPINNED)


UNPINNED = ("objective/listwise", "objective/guidance")
"""They draw windows by torch's own generator within the step: compared bit for bit, but not across processors."""


def compute_all(names: Callable[[str], bool] = lambda _: True) -> dict[str, Numbers]:
    """Numbers of every case, or of those that ``names`` takes."""
    results: dict[str, Numbers] = {}
    for name, config, compute in cases():
        if not names(name):
            continue
        model = build_model(config, num_classes=CLASSES, in_channels=1 if config.backbone == "glimpse_cnn" else 3)
        fill(model)
        results[name] = compute(model, config)
    return results


def differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Where two nests of numbers differ, and by how much (relative to 1, or the number if that is larger)."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(set(one) | set(other)):
            if name not in one or name not in other:
                yield f"{path}/{name}", float("inf")
            else:
                yield from differences(one[name], other[name], f"{path}/{name}")
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            yield path, float("inf")
        else:
            for place, pair in enumerate(zip(one, other, strict=True)):
                yield from differences(*pair, f"{path}/{place}")
    elif isinstance(one, float | int) and isinstance(other, float | int):
        if one != other:
            yield path, abs(one - other) / max(1.0, abs(one))
    elif one != other:
        yield path, float("inf")


def compare(commits: tuple[str, str]) -> int:
    """Dump both commits on this machine; the number of cases that differ in any bit."""
    dumps = []
    with tempfile.TemporaryDirectory() as folder:
        for place, commit in enumerate(commits):
            tree, file = Path(folder) / f"tree{place}", Path(folder) / f"dump{place}.json"
            subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, commit], check=True)
            try:
                environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
                subprocess.run(
                    [sys.executable, "benchmarks/golden.py", "dump", str(file)], cwd=tree, env=environment, check=True
                )
            finally:
                subprocess.run(["git", "worktree", "remove", "--force", tree], check=True)
            dumps.append(json.loads(file.read_text()))
    changed = 0
    for name in sorted(set(dumps[0]) | set(dumps[1])):
        worst = max((by for _, by in differences(*(dump.get(name) for dump in dumps))), default=0.0)
        changed += worst > 0
        print(f"{name}: {'the same bits' if worst == 0 else f'differs by {worst:.1e}'}")
    return changed


def rounded(value: Any) -> Any:
    """Seven digits, so that the file shows no rounding noise."""
    if isinstance(value, dict):
        return {name: rounded(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [rounded(entry) for entry in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write")
    commands.add_parser("dump").add_argument("file", type=Path)
    commands.add_parser("compare").add_argument("commits", nargs=2)
    chosen = parser.parse_args()
    if chosen.command == "compare":
        return min(1, compare(tuple(chosen.commits)))
    torch.set_num_threads(1)
    results = compute_all()
    if chosen.command == "dump":
        chosen.file.write_text(json.dumps(results))
    else:
        PINNED.parent.mkdir(exist_ok=True)
        pinned = {name: rounded(values) for name, values in results.items() if name not in UNPINNED}
        lines = [f"{json.dumps(name)}: {json.dumps(values)}" for name, values in pinned.items()]
        PINNED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
