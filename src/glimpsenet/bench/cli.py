"""The commands of ``glimpsenet bench``: thin over this package."""

from pathlib import Path
from typing import Any, Literal

import tyro

from glimpsenet.errors import SettingError
from glimpsenet.tables import print_table

bench_app = tyro.extras.SubcommandApp()


@bench_app.command(name="localization")
def localization(
    *,
    methods: tuple[str, ...] = (),
    task: Literal["digits", "digits-far", "image-folder"] = "digits",
    data: Path | None = None,
    backbone: str | None = None,
    backbone_weights: Path | None = None,
    max_steps: int | None = None,
    seeds: int = 1,
    out: Path = Path("runs/bench-localization"),
    device: str = "auto",
) -> None:
    """Train ways of learning where to look side by side, and compare them; goes on where it stopped.

    Args:
        methods: names of methods; all if none is given; mgnet and oracle are always among them.
        task: recipe whose data, backbone and schedule all methods share.
        data: image folder, for the task image-folder.
        backbone: a timm model, for the task image-folder.
        backbone_weights: weights it starts from.
        max_steps: optimiser steps of every method; the recipe's own if not given.
        seeds: how often to train each method.
        out: folder of the runs, of localization.json and localization.png.
        device: auto, cpu, cuda, cuda:1, mps.
    """
    from dataclasses import replace

    from glimpsenet.bench.localization import METHODS, bench_localization, check_methods
    from glimpsenet.recipes import RECIPES

    check_methods(methods)
    if seeds < 1 or (max_steps is not None and max_steps < 1):
        raise SettingError(f"--seeds and --max-steps must be 1 or more, got {seeds} and {max_steps}")
    config = RECIPES[task]()
    if task != "image-folder" and (data or backbone or backbone_weights):
        raise SettingError("--data, --backbone and --backbone-weights belong to --task image-folder")
    if data is not None:
        config = config.with_data(data)
    model = {"backbone": backbone, "backbone_weights": backbone_weights}
    model = {name: value for name, value in model.items() if value is not None}
    config = replace(
        config,
        model=replace(config.model, **model),
        training=replace(config.training, max_steps=max_steps or config.training.max_steps),
    )
    values = bench_localization(
        config, methods or tuple(METHODS), out, seeds=seeds, device=device, tell=lambda text: print(text, flush=True)
    )
    print_methods(values["methods"])
    print(f"wrote {out / 'localization.json'} and {out / 'localization.png'}")


def print_methods(methods: dict[str, Any]) -> None:
    """The table of methods, best first."""

    def number(value: float | None, form: str = "{:.3f}") -> str:
        return "-" if value is None else form.format(value)

    print_table(
        "accuracy after the last glimpse, means over seeds",
        ["method", "accuracy", "worst seed", "random", "oracle", "gain share", "found", "to mgnet's", "seconds"],
        [
            [
                name,
                number(values["accuracy"]),
                number(min(values["accuracies"])),
                number(values["random"]),
                number(values["oracle"]),
                number(values["gain_share"], "{:.0%}"),
                number(values["found_rate"][-1] if values["found_rate"] else None),
                number(values["steps_to_reference"], "{} steps"),
                number(values["seconds"], "{:.0f}"),
            ]
            for name, values in sorted(methods.items(), key=lambda item: -item[1]["accuracy"])
        ],
    )
