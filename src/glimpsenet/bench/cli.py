"""The commands of ``glimpsenet bench``: thin over this package."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from glimpsenet.config import check_seed
from glimpsenet.errors import SettingError
from glimpsenet.tables import print_table

if TYPE_CHECKING:
    import torch

bench_app = tyro.extras.SubcommandApp()
Target = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN_OR_BACKBONE")]


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
    records: Path | None = None,
    device: str = "auto",
) -> None:
    """Train ways of learning where to look side by side, and compare them; goes on where it stopped.

    Args:
        methods: names of methods; all if none is given; mgnet, pathwise-mipmap and oracle are always among them.
        task: recipe whose data, backbone and schedule all methods share.
        data: image folder, for the task image-folder.
        backbone: a timm model, for the task image-folder.
        backbone_weights: weights it starts from.
        max_steps: optimiser steps of every method; the recipe's own if not given.
        seeds: how often to train each method.
        out: folder of the runs, of localization.json and localization.png.
        records: folder of one JSON a finished run, which is not trained again; OUT/records if not given.
        device: auto, cpu, cuda, cuda:1, mps.
    """
    from dataclasses import replace

    from glimpsenet.bench.localization import METHODS, bench_localization, check_methods
    from glimpsenet.provenance import typed_command
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
        config,
        methods or tuple(METHODS),
        out,
        seeds=seeds,
        records=records,
        device=device,
        command=typed_command(),
        tell=_tell,
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


@bench_app.command
def speed(
    target: Target = "resnet18",
    /,
    *,
    image_size: int | None = None,
    glimpse_size: int | None = None,
    num_glimpses: int | None = None,
    batch_sizes: tuple[int, ...] = (1, 8, 32),
    modes: tuple[Literal["eager", "fast", "compiled"], ...] = ("eager", "fast", "compiled"),
    precision: Literal["float32", "bfloat16"] = "float32",
    training: int | None = None,
    repetitions: int = 7,
    device: str = "auto",
    out: Path = Path("speed.json"),
) -> None:
    """Time a model that glimpses beside its plain backbone in the same mode; in turn, with peak memory.

    Args:
        target: run folder, or a timm model to be timed with untrained weights.
        image_size: side of the images in pixels, for a backbone; 224 if not given.
        glimpse_size: side of a glimpse in pixels, for a backbone; 96 if not given.
        num_glimpses: glimpses, for a backbone; 4 if not given.
        batch_sizes: images at a time.
        modes: eager as it is; fast: norms folded, channels last; compiled: fast through torch.compile (minutes).
        precision: of the matrix products of both; MGNet's training step stays in float32.
        training: also time training steps of this many images, beside MGNet's recipe.
        repetitions: of every measurement.
        device: auto, cpu, cuda, cuda:1, mps.
        out: JSON file to write.
    """
    _require_positive(batch_sizes=batch_sizes, training=(training or 1,), repetitions=(repetitions,))
    _quiet_profiler()
    from glimpsenet.bench.speed import bench_speed
    from glimpsenet.bench.subjects import open_subject
    from glimpsenet.devices import choose_device

    place = choose_device(device)
    sizes = {"image_size": image_size, "glimpse_size": glimpse_size, "num_glimpses": num_glimpses}
    subject = open_subject(target, place, **sizes)
    result = bench_speed(
        subject,
        batch_sizes=batch_sizes,
        modes=modes,
        precision=precision,
        training_batch=training,
        repetitions=repetitions,
        tell=_tell,
    )
    print_ratios(f"{target}: time of all glimpses beside the plain backbone, both {precision}", result)
    for part in ("inference", "training"):
        print_speed(f"{target}: {part}, {precision}", result[part])
    _write(out, place, [subject.config.seed], result)


@bench_app.command
def scaling(
    target: Target = "resnet18",
    /,
    *,
    glimpses: tuple[int, ...] = (1, 2, 4, 8),
    image_sizes: tuple[int, ...] = (224, 320, 448, 640),
    batch_sizes: tuple[int, ...] = (1, 4, 16),
    mode: Literal["eager", "fast", "compiled"] = "fast",
    repetitions: int = 7,
    device: str = "auto",
    out: Path = Path("scaling.json"),
) -> None:
    """Time, operations and peak memory as glimpses or image and batch grow, beside the plain backbone.

    Args:
        target: run folder, or a timm model.
        glimpses: numbers of glimpses, timed at the middle one of the batch sizes.
        image_sizes: sides of the images in pixels; glimpses stay as large as they are.
        batch_sizes: images at a time, at every image size.
        mode: of both; eager as it is; fast: norms folded, channels last; compiled: fast through torch.compile.
        repetitions: of every measurement.
        device: auto, cpu, cuda, cuda:1, mps.
        out: JSON file to write.
    """
    _require_positive(glimpses=glimpses, image_sizes=image_sizes, batch_sizes=batch_sizes, repetitions=(repetitions,))
    _quiet_profiler()
    from glimpsenet.bench.scaling import bench_scaling
    from glimpsenet.bench.subjects import open_subject
    from glimpsenet.devices import choose_device

    place = choose_device(device)
    subject = open_subject(target, place)
    result = bench_scaling(
        subject,
        glimpses=glimpses,
        image_sizes=image_sizes,
        batch_sizes=batch_sizes,
        mode=mode,
        repetitions=repetitions,
    )
    print_scaling(f"{target}: a batch, {mode}", result)
    _write(out, place, [subject.config.seed], result)


def print_scaling(title: str, result: dict[str, Any]) -> None:
    """The table of ``bench scaling``, and from where on glimpses pay."""
    print_table(
        title,
        ["varied", "to", "batch", "x plain", "quartiles", "ms", "plain ms", "GFLOPs", "peak MB", "images MB"],
        [
            [
                row["varied"],
                *(str(row[name]) for name in ("value", "batch")),
                *_ratio(row),
                *(f"{timed['ms']:.2f}" for timed in (row, row["plain"])),
                f"{row['operations'] / 1e9:.2f}",
                *(f"{row[name]:.1f}" for name in ("peak_mb", "image_mb")),
            ]
            for row in result["rows"]
        ],
    )
    for found in result["break_even"]:
        size = found["image_size"]
        pays = "do not pay at any of these sizes" if size is None else f"pay from {size} px on"
        print(f"batch {found['batch']}: glimpses {pays}")


@bench_app.command(name="early-exit")
def early_exit(
    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN...")],
    /,
    *,
    plain: tuple[Path, ...] = (),
    within: float = 0.002,
    score: Literal["confidence", "margin"] = "confidence",
    batch_sizes: tuple[int, ...] = (1, 8, 32),
    scenes: int = 10_000,
    timed: int = 1000,
    blocks: int = 10,
    device: str = "auto",
    out: Path = Path("early-exit.json"),
) -> None:
    """Calibrate early exit on val and measure it on test, or on halves of val where there is no test split.

    Args:
        runs: run folders that differ in their seed only.
        plain: runs with one glimpse, to compare with: of each size one for every run, in their order.
        within: how far below all glimpses the accuracy may fall, 0..1, in 19 of 20 calibrations.
        score: what thresholds are compared with: the answer's probability, or its distance from the second.
        batch_sizes: images at a time.
        scenes: digit scenes to calibrate on, and as many to test on; other data are used whole.
        timed: test images to time.
        blocks: parts of these; each is one repetition.
        device: auto, cpu, cuda, cuda:1, mps.
        out: JSON file to write, and a picture beside it.
    """
    _require_positive(batch_sizes=batch_sizes, scenes=(scenes,), timed=(timed,), blocks=(blocks,))
    if not 0 <= within < 1:
        raise SettingError(f"--within is a share of the images, 0 or more and below 1; got {within:g}")
    if not runs:
        raise SettingError("no runs to measure: name run folders")
    from glimpsenet.bench.early_exit import bench_early_exit, plot_early_exit
    from glimpsenet.devices import choose_device
    from glimpsenet.inspection.figures import save_figure
    from glimpsenet.runs import load_run

    place = choose_device(device)
    opened = [load_run(run, place) for run in runs]
    result = bench_early_exit(
        opened,
        plain=[load_run(other, place) for other in plain],
        within=within,
        score=score,
        batch_sizes=batch_sizes,
        scenes=scenes,
        timed=timed,
        blocks=blocks,
        tell=_tell,
    )
    print_early_exit(result)
    save_figure(plot_early_exit(result), out.with_suffix(".png"))
    _write(out, place, (run.config.seed for run in opened), result)


@bench_app.command
def robustness(
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")],
    /,
    *,
    data: Path | None = None,
    plain: tuple[Path, ...] = (),
    images: int = 200,
    eps: float = 4.0,
    steps: int = 50,
    restarts: int = 5,
    queries: int = 1000,
    targets: int = 9,
    attacks: tuple[Literal["mgnet", "pgd", "score", "autoattack", "square", "unbounded"], ...] = (
        "mgnet",
        "pgd",
        "score",
        "autoattack",
        "square",
        "unbounded",
    ),
    corruptions: tuple[str, ...] | None = None,
    severities: tuple[int, ...] = (1, 2, 3, 4, 5),
    imagenet_c: Path | None = None,
    batch_size: int = 50,
    seed: int = 0,
    device: str = "auto",
    out: Path = Path("robustness.json"),
) -> None:
    """Attack a run and corrupt its images, beside plain backbones; with checks for masked gradients.

    Args:
        run: run folder.
        data: another folder with val/CLASS/*.jpg.
        plain: runs with one glimpse of the whole image (recipe whole-image), to compare with.
        images: how many are drawn from the validation images.
        eps: largest change of a pixel, of 255.
        steps: of PGD.
        restarts: of PGD, each from a random start.
        queries: answers that the Square attack asks for an image.
        targets: classes that AutoAttack's targeted attacks aim at; most of the time goes there.
        attacks: mgnet is MGNet's protocol, the others are in pixel space and without the gradient factor.
        corruptions: names of ImageNet-C's; all 15 if not given; none by an empty list.
        severities: 1 to 5.
        imagenet_c: folder CORRUPTION/SEVERITY/CLASS of ready images, instead of those made of the run's own.
        batch_size: images at a time.
        seed: of the images drawn and of everything random.
        device: auto, cpu, cuda, cuda:1, mps.
        out: JSON file to write, and a picture beside it.
    """
    _require_positive(images=(images,), steps=(steps,), restarts=(restarts,), queries=(queries,))
    _require_positive(batch_size=(batch_size,), targets=(targets,))
    from glimpsenet.data.imagenet import CORRUPTIONS
    from glimpsenet.devices import choose_device
    from glimpsenet.inspection.figures import save_figure
    from glimpsenet.robustness.bench import Protocol, bench_robustness
    from glimpsenet.robustness.figures import plot_robustness
    from glimpsenet.runs import load_run

    chosen = CORRUPTIONS if corruptions is None else corruptions
    if not 0 < eps <= 255:
        raise SettingError(f"--eps is of 255, above 0; got {eps:g}")
    if unknown := [name for name in chosen if name not in CORRUPTIONS]:
        raise SettingError(f"no corruption '{unknown[0]}'; there are {', '.join(CORRUPTIONS)}")
    if not severities or not set(severities) <= {1, 2, 3, 4, 5}:
        raise SettingError(f"--severities are 1 to 5, got {' '.join(map(str, severities))}")
    check_seed(seed)
    place = choose_device(device)
    runs = [load_run(folder, place) for folder in (run, *plain)]
    result = bench_robustness(
        runs[0],
        plain=runs[1:],
        data=data,
        images=images,
        protocol=Protocol(
            attacks=attacks,
            eps=eps / 255,
            steps=steps,
            restarts=restarts,
            queries=queries,
            targets=targets,
            corruptions=tuple(chosen),
            severities=severities,
            batch_size=batch_size,
            seed=seed,
        ),
        imagenet_c=imagenet_c,
        tell=_tell,
    )
    print_robustness(result)
    save_figure(plot_robustness(result), out.with_suffix(".png"))
    _write(out, place, (seed, *(one.config.seed for one in runs)), result)


def print_robustness(result: dict[str, Any]) -> None:
    """The tables of ``bench robustness``: attacks, corruptions, checks."""
    models = result["models"]
    conditions = list(dict.fromkeys((e["attack"], e["glimpses"]) for model in models for e in model["attacks"]))
    found = [{(e["attack"], e["glimpses"]): e for e in model["attacks"]} for model in models]

    def cell(entry: dict[str, Any] | None) -> str:
        return "-" if entry is None else "{:.3f} ({:.3f}-{:.3f})".format(entry["accuracy"], *entry["interval"])

    names = [model["model"] for model in models]
    most = max(model["glimpses"] for model in models)
    clean = [
        [f"none, {t} glimpses", *(cell(m["clean"][t - 1] if t <= m["glimpses"] else None) for m in models)]
        for t in range(1, most + 1)
    ]
    attacked = [
        [f"{name}, {count} glimpses", *(cell(one.get((name, count))) for one in found)] for name, count in conditions
    ]
    worst = [["worst of all in pixel space", *(cell(model["worst_case"]) for model in models)]]
    title = f"{result['images']} images, eps {255 * result['eps']:g}/255: accuracy (95%)"
    print_table(title, ["attack", *names], clean + attacked + (worst if conditions else []))
    if models[0]["corruptions"]:
        kinds = list(dict.fromkeys(entry["corruption"] for entry in models[0]["corruptions"]))
        rows = [[kind, *(f"{_mean_under(model, kind):.3f}" for model in models)] for kind in kinds]
        rows.append(["mean", *(f"{model['mean_under_corruptions'][-1]:.3f}" for model in models)])
        print_table("under corruptions, mean over severities", ["corruption", *names], rows)
    for difference in result["differences"]:
        for name, value in difference.items():
            if isinstance(value, dict):
                low, high = value["interval"]
                print(
                    f"{name}: {difference['model']} is {100 * value['difference']:+.1f} points"
                    f" ({100 * low:+.1f} to {100 * high:+.1f}) from {difference['than']}"
                )
    for check in result["masking"]:
        verdict = "passed" if check["passed"] else "FAILED: do not trust the white-box accuracy"
        print(f"{check['model']}: {check['check']}: {check['accuracy']:.3f} beside {check['white_box']:.3f}, {verdict}")


def _mean_under(model: dict[str, Any], corruption: str) -> float:
    values = [entry["accuracy"][-1] for entry in model["corruptions"] if entry["corruption"] == corruption]
    return sum(values) / len(values)


def print_ratios(title: str, result: dict[str, Any]) -> None:
    """What ``bench speed`` is about: a row a mode and batch; below 1 glimpses take less time."""
    rows = [[row["mode"], str(row["batch"]), *_ratio(row)] for row in result["ratios"]]
    print_table(f"{title}, {result['repetitions']} repetitions", ["mode", "batch", "x plain", "quartiles"], rows)


def print_speed(title: str, rows: list[dict[str, Any]]) -> None:
    """The table of one part of ``bench speed``; training steps stand beside the reference's."""
    if rows:
        reference = ["x reference"] if "ratio" in rows[0] else []
        print_table(
            title,
            ["what", "mode", "batch", "ms", "quartiles", *reference, "of possible", "peak MB"],
            [
                [
                    *(str(row[name]) for name in ("what", "mode", "batch")),
                    *_times(row),
                    *([f"{row['ratio']:.2f}"] if reference else []),
                    f"{row['share_of_roofline']:.0%}",
                    f"{row['peak_mb']:.1f}",
                ]
                for row in rows
            ],
        )


def print_early_exit(result: dict[str, Any]) -> None:
    """The table of ``bench early-exit``: means over the runs, and the accuracy of each."""
    batches = [time["batch"] for time in result["candidates"][0]["times"]]
    seeds = ", ".join(map(str, result["seeds"]))
    print_table(
        f"{result['images']} images ({result['split']}) that no threshold was calibrated on, means over seeds {seeds}",
        ["", "accuracy", "of each seed", "glimpses", "M operations", *(f"ms, batch {b} (x all)" for b in batches)],
        [
            [
                row["candidate"],
                f"{row['accuracy']:.4f}",
                " ".join(f"{accuracy:.4f}" for accuracy in row["accuracies"]),
                f"{row['mean_glimpses']:.2f}",
                f"{row['operations'] / 1e6:.1f}",
                *(f"{time['ms']:.3f} ({time['ratio']:.2f})" for time in row["times"]),
            ]
            for row in result["candidates"]
        ],
    )


def _times(row: dict[str, Any]) -> list[str]:
    return [f"{row['ms']:.2f}", "{:.2f}-{:.2f}".format(*row["ms_quartiles"])]


def _ratio(row: dict[str, Any]) -> list[str]:
    return [f"{row['ratio']:.2f}", "{:.2f}-{:.2f}".format(*row["ratio_quartiles"])]


def _write(out: Path, device: "torch.device", seeds: Iterable[int], result: dict[str, Any]) -> None:
    from glimpsenet.files import write_json
    from glimpsenet.provenance import provenance

    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {**provenance(device, seeds), **result})
    _tell(f"wrote {out}")


def _require_positive(**flags: tuple[int, ...]) -> None:
    for name, values in flags.items():
        if not values or min(values) < 1:
            raise SettingError(f"--{name.replace('_', '-')} must be 1 or more, got {' '.join(map(str, values))}")


def _quiet_profiler() -> None:
    """The profiler that counts memory is talkative, unless told otherwise before torch is loaded."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _tell(text: str) -> None:
    print(text, flush=True)
