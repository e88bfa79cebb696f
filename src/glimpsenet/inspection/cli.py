"""The commands of ``glimpsenet inspect``: thin over this package."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from glimpsenet.errors import SettingError, UserError, printable
from glimpsenet.tables import counted, print_table

if TYPE_CHECKING:
    from torch import Tensor

    from glimpsenet.data.sample import GlimpseDataset
    from glimpsenet.inspection.gradients import Scene, WindowLoss
    from glimpsenet.runs import Run

inspect_app = tyro.extras.SubcommandApp()
RunFolder = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
ImageFile = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGE")]
LossName = Literal["last", "own", "auxiliary", "total"]


@dataclass(frozen=True)
class Look:
    """What is looked at."""

    label: str | None = None
    """True class of the image, by name; if not given, that of its folder, or else the predicted one."""
    loss: LossName = "last"
    """Whose derivative: the last step's loss, the window's own step's, the auxiliary or the whole training loss."""
    windows: Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="STEP=s,tx,ty")] = ()
    """Windows to inject before, as STEP=s,tx,ty; later steps react."""
    allow_outside: bool = False
    """Accept windows that leave the image."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""


@dataclass(frozen=True)
class Observed:
    """A run's look at one image file."""

    run: "Run"
    scene: "Scene"
    loss: "WindowLoss"


def _read(run: Path, image: Path, device: str) -> "tuple[Run, Tensor]":
    """A run, and an image file as its model takes it."""
    from glimpsenet.data.images import read_image
    from glimpsenet.devices import choose_device
    from glimpsenet.runs import load_run

    if image.is_dir():
        raise UserError(f"{image} is a folder; name one image file")
    loaded = load_run(run, choose_device(device))
    photos = loaded.config.photos
    transform = photos.augmentation.evaluation_transform(loaded.config.model.image_size)
    return loaded, transform(read_image(image, loaded.channels, photos.value_range))


def _observe(run: Path, image: Path, look: Look) -> Observed:
    from glimpsenet.inference.files import true_class
    from glimpsenet.inspection import gradients
    from glimpsenet.inspection.injection import parse_windows
    from glimpsenet.policies.baselines import FixedGlimpses

    loaded, picture = _read(run, image, look.device)
    if look.label is not None and look.label not in loaded.classes:
        raise SettingError(f"the run has no class '{look.label}'; it has {', '.join(loaded.classes[:12])}...")
    windows = parse_windows(look.windows, loaded.model.num_glimpses, allow_outside=look.allow_outside)
    label = look.label or true_class(image, loaded.classes)
    scene = gradients.observe(
        loaded.model,
        picture,
        None if label is None else loaded.classes.index(label),
        policy=FixedGlimpses(windows, otherwise=loaded.model.policy) if windows else None,
    )
    source = "" if look.label else " (the predicted one; --label names another)" if label is None else " (the folder's)"
    print(printable(f"loss of class '{loaded.classes[scene.label]}'{source}"))
    loss = gradients.by_name(look.loss, loaded.config.training.auxiliary_weight)
    return Observed(loaded, scene, loss)


@inspect_app.command
def arrows(
    run: RunFolder,
    image: ImageFile,
    /,
    *,
    look: tyro.conf.OmitArgPrefixes[Look] = Look(),
    figure: Path = Path("arrows.png"),
) -> None:
    """Draw where descent would move and resize each window.

    Args:
        run: run folder.
        image: image file.
        look: what is looked at.
        figure: picture to write.
    """
    from glimpsenet.inspection.arrows import arrows as measure

    seen = _observe(run, image, look)
    result = _refusing(lambda: measure(seen.scene, seen.loss, classes=seen.run.classes))
    result.save(figure)
    for step, gradient in enumerate(result.gradient.tolist(), 2):
        print(
            f"step {step}: " + "  ".join(f"dL/d{n} {v:+.4g}" for n, v in zip(("s", "tx", "ty"), gradient, strict=True))
        )
    print(f"drew {figure}")


@inspect_app.command
def sweep(
    run: RunFolder,
    image: ImageFile,
    /,
    *,
    look: tyro.conf.OmitArgPrefixes[Look] = Look(),
    step: int = 2,
    parameter: Literal["s", "tx", "ty", "all"] = "all",
    points: int = 200,
    out: Path = Path("sweep"),
    gif: bool = False,
) -> None:
    """Run one parameter of a window over its range: loss, gradient, line of best fit.

    Args:
        run: run folder.
        image: image file.
        look: what is looked at.
        step: whose window, 1 is the first look.
        parameter: s, tx, ty or all.
        points: how many.
        out: folder for PNG and CSV (and GIF) per parameter, and one PNG of all.
        gif: also animate the moving window.
    """
    from glimpsenet.inspection import sweep as tool
    from glimpsenet.inspection.figures import save_figure

    seen = _observe(run, image, look)
    scale_range = seen.run.config.model.scale_range
    results, refusals = [], []
    for name in tool.PARAMETERS if parameter == "all" else (parameter,):
        try:
            result = tool.sweep(seen.scene, name, step=step, points=points, scale_range=scale_range, loss=seen.loss)
        except tool.NoRoomError as error:
            refusals.append(str(error))
            continue
        except ValueError as error:
            raise SettingError(str(error)) from error
        results.append(result)
        for suffix in ("png", "csv"):
            result.save(out / f"{name}.{suffix}")
        if gif:
            tool.animate_sweep(seen.scene, result, out / f"{name}.gif")
        verdict = "as wanted" if result.has_wanted_sign else "the wrong way"
        print(f"{name}: slope {result.slope:+.4g} ({verdict}), R^2 {result.r_squared:.3f}")
    if not results:
        raise SettingError("; ".join(refusals))
    for refusal in refusals:
        print(f"left out: {refusal}")
    save_figure(tool.plot_sweeps(results), out / "sweep.png")
    print(f"wrote {out}")


@inspect_app.command
def field(
    run: RunFolder,
    image: ImageFile,
    /,
    *,
    look: tyro.conf.OmitArgPrefixes[Look] = Look(),
    step: int = 2,
    points: int = 21,
    scale: float | None = None,
    figure: Path = Path("field.png"),
) -> None:
    """Draw the loss over all places of a window, with the direction of descent.

    Args:
        run: run folder.
        image: image file.
        look: what is looked at.
        step: whose window, 1 is the first look.
        points: places a side.
        scale: s of the window; what the model chose if not given.
        figure: picture to write.
    """
    from glimpsenet.inspection.field import field as measure

    seen = _observe(run, image, look)
    _refusing(lambda: measure(seen.scene, step=step, points=points, scale=scale, loss=seen.loss)).save(figure)
    print(f"drew {figure}")


@inspect_app.command
def inject(
    run: RunFolder,
    image: ImageFile,
    /,
    *,
    windows: Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="STEP=s,tx,ty")],
    allow_outside: bool = False,
    device: str = "auto",
    figure: Path = Path("inject.png"),
) -> None:
    """Look where you say, and see what the model makes of it.

    Args:
        run: run folder.
        image: image file.
        windows: one or more windows, as STEP=s,tx,ty; steps that are not named look for themselves.
        allow_outside: accept windows that leave the image.
        device: auto, cpu, cuda, cuda:1, mps.
        figure: picture to write: without and with the windows.
    """
    from glimpsenet.inspection import injection

    loaded, picture = _read(run, image, device)
    chosen = injection.parse_windows(windows, loaded.model.num_glimpses, allow_outside=allow_outside)
    result = injection.inject(loaded.model, picture, chosen, classes=loaded.classes)
    for row in result.rows:
        answers = (f"{label} {value:.2f}" for step in range(1, len(row.affine) + 1) for label, value in row.top(step))
        print(printable(f"{row.name}: {'  ->  '.join(answers)}"))
    result.save(figure)
    print(f"drew {figure}")


@inspect_app.command
def scanpath(
    run: RunFolder,
    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE...")],
    /,
    *,
    figure: Path = Path("scanpath.png"),
    device: str = "auto",
) -> None:
    """Draw where the model looked in images, what it saw, and what it thought after each look.

    Args:
        run: run folder.
        images: image files and folders; of more than six, six are drawn, spread over their folders.
        figure: picture to write.
        device: auto, cpu, cuda, cuda:1, mps.
    """
    from glimpsenet.data.finding import find_images
    from glimpsenet.data.spread import spread_over_folders
    from glimpsenet.devices import choose_device
    from glimpsenet.inference import Prediction, predict
    from glimpsenet.inspection.scanpath import MAX_ROWS, gather
    from glimpsenet.runs import load_run

    files = find_images(*images)
    if not files:
        raise SettingError("no images to draw: name files or folders after the run")
    loaded = load_run(run, choose_device(device))
    predictions: list[Prediction] = []
    for result in predict(loaded, spread_over_folders(files, MAX_ROWS, loaded.config.seed)):
        if not isinstance(result, Prediction):
            raise UserError(result.problem)
        predictions.append(result)
    gather(predictions).save(figure)
    print(f"drew {figure}")


@inspect_app.command
def statistics(
    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN...")],
    /,
    *,
    figure: Path = Path("statistics.png"),
) -> None:
    """Plot the localization network's weights, gradients and windows over training; several runs overlay.

    Args:
        runs: run folders.
        figure: picture to write.
    """
    from glimpsenet.inspection.figures import save_figure
    from glimpsenet.inspection.statistics import plot_statistics, read_statistics

    if not runs:
        raise SettingError("no runs to plot: name run folders")
    read = {os.path.normpath(run): read_statistics(run) for run in runs}
    save_figure(next(iter(read.values())).plot() if len(read) == 1 else plot_statistics(read), figure)
    print(f"drew {figure}")


@inspect_app.command
def quality(
    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN...")],
    /,
    *,
    data: Path | None = None,
    generators: tuple[Literal["own", "bilinear", "mipmap", "linearized"], ...] = ("own",),
    images: int = 50,
    step: int = 2,
    points: int = 100,
    loss: LossName = "last",
    glimpses: Literal["learned", "random", "oracle"] = "learned",
    seed: int = 0,
    device: str = "auto",
    out: Path = Path("quality"),
) -> None:
    """Measure how useful the gradient of windows is, over many images: sign, line, agreement, noise.

    Args:
        runs: run folders, to compare.
        data: image folder with val/CLASS; each run's own validation images if not given.
        generators: how windows are sampled while measuring; "own" is the run's way.
        images: how many, spread over classes.
        step: whose window, 1 is the first look.
        points: of each sweep.
        loss: whose derivative.
        glimpses: around which windows: the model's, random ones (the same for all), or the boxes.
        seed: of the choice of images, of the random windows and of the confidence intervals.
        device: auto, cpu, cuda, cuda:1, mps.
        out: folder for quality.json and quality.png.
    """
    from glimpsenet.data.spread import read_spread
    from glimpsenet.devices import choose_device
    from glimpsenet.files import write_json
    from glimpsenet.inspection import gradients
    from glimpsenet.inspection.figures import save_figure
    from glimpsenet.inspection.quality import (
        GradientQuality,
        compare_qualities,
        format_table,
        gradient_quality,
        with_generator,
    )
    from glimpsenet.models.sampling import BilinearGlimpses, LinearizedGlimpses, MipmapGlimpses
    from glimpsenet.policies.baselines import OracleGlimpses, RandomGlimpses
    from glimpsenet.runs import load_run

    if not runs:
        raise SettingError("no runs to measure: name run folders")
    kinds = {"bilinear": BilinearGlimpses, "mipmap": MipmapGlimpses, "linearized": LinearizedGlimpses}
    results: dict[str, GradientQuality] = {}
    for folder in runs:
        loaded = load_run(folder, choose_device(device))
        scale_range = loaded.config.model.scale_range
        batch = read_spread(_validation_images(loaded, data), images, seed)
        if batch.problems:
            first = printable(batch.problems[0])
            print(f"left out {counted(len(batch.problems), 'unusable image')}; the first: {first}")
        samples = list(zip(batch.images, batch.labels, batch.boxes, strict=True))
        if glimpses == "oracle" and any(bool(box.isnan().any()) for _, _, box in samples):
            raise UserError("the oracle needs to know where to look: boxes.csv lacks some of the validation images")
        for kind in generators:
            model = loaded.model
            if kind != "own":
                generator = kinds[kind](model.generator.glimpse_size)
                model = with_generator(model, generator.to(model.classifier.weight.device))
            name = os.path.normpath(folder) + ("" if kind == "own" else f" ({kind})")
            policies = {
                "learned": None,
                "random": RandomGlimpses(scale_range, seed),
                "oracle": [OracleGlimpses(scale_range, box[None]) for _, _, box in samples],
            }
            settings: dict[str, Any] = {
                "step": step,
                "points": points,
                "scale_range": scale_range,
                "loss": gradients.by_name(loss, loaded.config.training.auxiliary_weight),
                "policy": policies[glimpses],
                "seed": seed,
            }
            pairs = [(image, int(label)) for image, label, _ in samples]
            results[name] = _refusing(lambda m=model, p=pairs, s=settings: gradient_quality(m, p, **s))
            print(f"measured {name}: {counted(results[name].num_images, 'image')}")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "quality.json", {name: result.to_dict() for name, result in results.items()})
    save_figure(compare_qualities(results), out / "quality.png")
    head, *rows = format_table(results)
    print_table("gradient quality, 95% intervals over images", head, rows)
    print(f"wrote {out}")


@inspect_app.command
def dataset(
    run: RunFolder,
    /,
    *,
    data: Path | None = None,
    device: str = "auto",
    out: Path = Path("dataset"),
) -> None:
    """Where the model looks over its whole validation set: density, distributions, coverage, examples.

    Args:
        run: run folder.
        data: image folder with val/CLASS; the run's own validation images if not given.
        device: auto, cpu, cuda, cuda:1, mps.
        out: folder for dataset.json, dataset.png and examples.png.
    """
    from glimpsenet.data.loading import InOrder, create_loader
    from glimpsenet.devices import choose_device
    from glimpsenet.inspection.dataset import scan_dataset
    from glimpsenet.inspection.figures import save_figure
    from glimpsenet.runs import load_run

    loaded = load_run(run, choose_device(device))
    photos = _validation_images(loaded, data)
    size, batches = loaded.config.model.image_size, create_loader(photos, InOrder(len(photos)), 64)
    paths = _refusing(lambda: scan_dataset(loaded.model, batches, image_size=size, classes=loaded.classes))
    for name in ("dataset.json", "dataset.png"):
        paths.save(out / name)
    save_figure(paths.plot_examples(), out / "examples.png")
    print(f"wrote {out}")


def _validation_images(run: "Run", data: Path | None) -> "GlimpseDataset":
    """A run's validation images, or those of another folder."""
    from glimpsenet.data.loading import open_data

    config = run.config if data is None else run.config.with_data(data)
    return open_data(config, run.classes, run.channels).val


def _refusing(call: Any) -> Any:
    """What a tool refuses is wrong usage here."""
    try:
        return call()
    except ValueError as error:
        raise SettingError(str(error)) from error
