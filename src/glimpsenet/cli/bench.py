"""``glimpsenet bench``: measure and compare."""

import os
from pathlib import Path
from typing import Annotated, Literal

import tyro

from glimpsenet.cli.arguments import BatchSize, Device, JsonFile, Records, RunFolder, RunFolders, at_least
from glimpsenet.cli.output import say, write_result
from glimpsenet.config import check_seed
from glimpsenet.errors import SettingError
from glimpsenet.tables import print_table

Target = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN_OR_BACKBONE")]


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
    records: Records = None,
    device: Device = "auto",
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
    """
    from dataclasses import replace

    from glimpsenet.bench import tables
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
        tell=say,
    )
    print_table(*tables.method_table(values["methods"]))
    say(f"wrote {out / 'localization.json'} and {out / 'localization.png'}")


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
    device: Device = "auto",
    out: JsonFile = Path("speed.json"),
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
    """
    at_least(1, batch_sizes=batch_sizes, training=(training or 1,), repetitions=(repetitions,))
    quiet_profiler()
    from glimpsenet.bench import tables
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
        tell=say,
    )
    print_table(
        *tables.ratio_table(f"{target}: time of all glimpses beside the plain backbone, both {precision}", result)
    )
    for part in ("inference", "training"):
        if result[part]:
            print_table(*tables.speed_table(f"{target}: {part}, {precision}", result[part]))
    write_result(out, place, [subject.config.seed], result)


def scaling(
    target: Target = "resnet18",
    /,
    *,
    glimpses: tuple[int, ...] = (1, 2, 4, 8),
    image_sizes: tuple[int, ...] = (224, 320, 448, 640),
    batch_sizes: tuple[int, ...] = (1, 4, 16),
    mode: Literal["eager", "fast", "compiled"] = "fast",
    repetitions: int = 7,
    device: Device = "auto",
    out: JsonFile = Path("scaling.json"),
) -> None:
    """Time, operations and peak memory as glimpses or image and batch grow, beside the plain backbone.

    Args:
        target: run folder, or a timm model.
        glimpses: numbers of glimpses, timed at the middle one of the batch sizes.
        image_sizes: sides of the images in pixels; glimpses stay as large as they are.
        batch_sizes: images at a time, at every image size.
        mode: of both; eager as it is; fast: norms folded, channels last; compiled: fast through torch.compile.
        repetitions: of every measurement.
    """
    at_least(1, glimpses=glimpses, image_sizes=image_sizes, batch_sizes=batch_sizes, repetitions=(repetitions,))
    quiet_profiler()
    from glimpsenet.bench import tables
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
    print_table(*tables.scaling_table(f"{target}: a batch, {mode}", result))
    for line in tables.break_even_lines(result):
        say(line)
    write_result(out, place, [subject.config.seed], result)


def early_exit(
    runs: RunFolders,
    /,
    *,
    plain: tuple[Path, ...] = (),
    within: float = 0.002,
    score: Literal["confidence", "margin"] = "confidence",
    batch_sizes: tuple[int, ...] = (1, 8, 32),
    scenes: int = 10_000,
    timed: int = 1000,
    blocks: int = 10,
    device: Device = "auto",
    out: JsonFile = Path("early-exit.json"),
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
        out: JSON file to write, and a picture beside it.
    """
    at_least(1, batch_sizes=batch_sizes, scenes=(scenes,), timed=(timed,), blocks=(blocks,))
    if not 0 <= within < 1:
        raise SettingError(f"--within is a share of the images, 0 or more and below 1; got {within:g}")
    if not runs:
        raise SettingError("no runs to measure: name run folders")
    from glimpsenet.bench import tables
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
        tell=say,
    )
    print_table(*tables.early_exit_table(result))
    save_figure(plot_early_exit(result), out.with_suffix(".png"))
    write_result(out, place, (run.config.seed for run in opened), result)


def robustness(
    run: RunFolder,
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
    batch_size: BatchSize = 50,
    seed: int = 0,
    device: Device = "auto",
    out: JsonFile = Path("robustness.json"),
) -> None:
    """Attack a run and corrupt its images, beside plain backbones; with checks for masked gradients.

    Args:
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
        seed: of the images drawn and of everything random.
        out: JSON file to write, and a picture beside it.
    """
    at_least(1, images=(images,), steps=(steps,), restarts=(restarts,), queries=(queries,))
    at_least(1, batch_size=(batch_size,), targets=(targets,))
    from glimpsenet.data.imagenet import CORRUPTIONS
    from glimpsenet.devices import choose_device
    from glimpsenet.inspection.figures import save_figure
    from glimpsenet.robustness.bench import Protocol, bench_robustness
    from glimpsenet.robustness.figures import plot_robustness
    from glimpsenet.robustness.tables import robustness_lines, robustness_tables
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
        tell=say,
    )
    for table in robustness_tables(result):
        print_table(*table)
    for line in robustness_lines(result):
        say(line)
    save_figure(plot_robustness(result), out.with_suffix(".png"))
    write_result(out, place, (seed, *(one.config.seed for one in runs)), result)


def quiet_profiler() -> None:
    """The profiler that counts memory is talkative, unless told otherwise before torch is loaded."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


BENCH = {
    "localization": localization,
    "speed": speed,
    "scaling": scaling,
    "early-exit": early_exit,
    "robustness": robustness,
}
