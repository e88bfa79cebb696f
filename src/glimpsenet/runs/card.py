"""The model card of a run, and what of a run others may see.

Source: the Hub's metadata of model cards (https://huggingface.co/docs/hub/model-cards).
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from glimpsenet.config import Config
from glimpsenet.errors import DamagedError, printable
from glimpsenet.models.config import ModelConfig
from glimpsenet.recipes import RECIPES
from glimpsenet.templates import render

CARD = "README.md"
MOST_CLASSES = 100
"""Names that a card lists."""


def without_folders(config: Config) -> Config:
    """``config`` as others may see it: of paths on this machine, their last part."""
    weights, data = config.model.backbone_weights, config.data
    if weights is not None:
        config = dataclasses.replace(
            config, model=dataclasses.replace(config.model, backbone_weights=Path(weights.name))
        )
    return dataclasses.replace(config, data=data.without_folders())


def read_summary(file: Path) -> dict[str, Any]:
    """A run's ``summary.json`` as others may see it: without the names of images; empty if there is none.

    Raises:
        UserError: if it is damaged.
    """
    if not file.is_file():
        return {}
    try:
        summary = json.loads(file.read_text())
        summary.pop("skipped_images", None)
        summary["metrics"].pop("skipped", None)
        (summary.get("test_metrics") or {}).pop("skipped", None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{file} is damaged: {error}; remove it to share the model without figures") from error
    return summary


def make_card(
    repo_id: str, config: Config, classes: list[str], channels: int, summary: dict[str, Any], parameters: int
) -> ModelCard:
    """The model card of a run: what it is, what was measured, how to use it, what it cannot do.

    Args:
        repo_id: USER/NAME.
        config: the run's.
        classes: their names.
        channels: of its images.
        summary: from :func:`read_summary`; without it, the card tells no figures.
        parameters: how many.
    """
    name = repo_id.split("/")[-1]
    dataset = printable(config.data.title)
    split = "test" if summary.get("test_metrics") else "validation"
    metrics = summary.get("test_metrics") or summary.get("metrics")
    results = [] if metrics is None else _eval_results(dataset, split, metrics["accuracy"])
    metadata = ModelCardData(
        model_name=name if results else None,
        eval_results=results or None,
        library_name="glimpsenet",
        pipeline_tag="image-classification",
        tags=["glimpsenet", "glimpses", "active-vision", "hard-attention"],
        metrics=["accuracy"] if results else None,
    )
    content = render(
        "card.md",
        metadata=metadata.to_yaml(),
        repo_id=repo_id,
        name=name,
        windows=config.model.num_glimpses - 1,
        dataset=dataset,
        split=split,
        num_images=metrics and metrics["num_images"],
        glimpses=metrics and len(metrics["accuracy"]),
        measured=metrics and _figures(metrics, summary.get("cost")),
        facts=_facts(config, channels, summary, parameters, dataset),
        classes=[printable(name) for name in classes],
        most_classes=MOST_CLASSES,
    )
    return ModelCard(content)


def _facts(config: Config, channels: int, summary: dict[str, Any], parameters: int, dataset: str) -> dict[str, Any]:
    """The table of what it is; None for what is not known."""
    model = config.model
    recipe = next((name for name, recipe in RECIPES.items() if recipe().model == model), None)
    return {
        "backbone": f"`{printable(model.backbone)}`",
        "parameters": f"{parameters:,}",
        "images": f"{model.image_size} x {model.image_size} px, {'grey' if channels == 1 else 'colour'}",
        "glimpses": f"{model.num_glimpses} of {model.glimpse_size} x {model.glimpse_size} px; the first sees it all",
        "policy": model.policy.described if model.num_glimpses > 1 else None,
        "model of the recipe": recipe and f"`{recipe}`",
        "backbone started from": _start(model),
        "trained on": dataset,
        "policy learned by": f"`{config.training.objective}`",
        "optimiser steps": summary.get("steps"),
        "seed": config.seed,
    }


def _start(model: ModelConfig) -> str | None:
    if model.backbone_weights is not None:
        return f"`{printable(model.backbone_weights.name)}`"
    return "timm's pretrained weights" if model.pretrained else None


def _eval_results(dataset: str, split: str, accuracy: list[float]) -> list[EvalResult]:
    last = len(accuracy)
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type="image-folder",
            dataset_name=dataset,
            metric_type="accuracy",
            metric_name=f"accuracy after {glimpse} glimpse{'s' if glimpse > 1 else ''}",
            metric_value=round(accuracy[glimpse - 1], 4),
            dataset_split=split,
        )
        for glimpse in ([last, 1] if last > 1 else [1])
    ]


def _figures(metrics: dict[str, Any], cost: dict[str, Any] | None) -> dict[str, list[str]]:
    """What was measured, each with one number a glimpse, or none if it was not."""
    share = cost and cost["share_of_full_pass"]
    return {
        "accuracy": [f"{value:.3f}" for value in metrics["accuracy"]],
        "side of the window, share of the image's": [f"{value:.2f}" for value in metrics["mean_scale"]],
        "objects found so far": [f"{value:.1%}" for value in metrics["found_rate"] or []],
        "FLOPs, billions": [f"{value / 1e9:.3g}" for value in cost["flops"]] if cost else [],
        "... of one pass over the full image": [f"{value:.0%}" for value in share or []],
    }
