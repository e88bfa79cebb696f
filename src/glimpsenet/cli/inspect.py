"""``glimpsenet inspect``: see where a run looks, and why."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from glimpsenet.cli.arguments import Device, Figure, ImageFile, RunFolder, RunFolders
from glimpsenet.cli.errors import refusals_are_wrong_usage
from glimpsenet.cli.output import say
from glimpsenet.errors import SettingError, UserError, printable
from glimpsenet.tables import print_table

if TYPE_CHECKING:
    from glimpsenet.config import Config
    from glimpsenet.inspection.gradients import Scene, WindowLoss

LossName = Literal["last", "own", "auxiliary", "total"]


@dataclass(frozen=True)
class Look:
    """What is looked at."""

    label: str | None = None
    """True class of the image, by name; if not given, that of its folder, or else the predicted one."""
    loss: LossName = "last"
    """The loss whose derivative is taken: after the last glimpse, after the window's own, auxiliary, or training's."""
    windows: Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="GLIMPSE=s,tx,ty")] = ()
    """Windows to inject before, as GLIMPSE=s,tx,ty; later glimpses react."""
    allow_outside: bool = False
    """Accept windows that leave the image."""
    device: Device = "auto"


def observe(run: Path, image: Path, look: Look) -> "tuple[Scene, WindowLoss, Config, list[str]]":
    """A run's look at an image file, the loss asked for, and the run's settings and classes."""
    from glimpsenet.devices import choose_device
    from glimpsenet.inference.files import true_class
    from glimpsenet.inspection.gradients import by_name
    from glimpsenet.inspection.photo import observe_photo
    from glimpsenet.runs import load_run

    loaded = load_run(run, choose_device(look.device))
    scene = observe_photo(loaded, image, look.label, look.windows, allow_outside=look.allow_outside)
    known = true_class(image, loaded.classes)
    source = "" if look.label else " (the folder's)" if known else " (the predicted one; --label names another)"
    say(printable(f"loss of class '{loaded.classes[scene.label]}'{source}"))
    loss = by_name(look.loss, loaded.config.training.auxiliary_weight)
    return scene, loss, loaded.config, loaded.classes


def arrows(
    run: RunFolder,
    image: ImageFile,
    /,
    *,
    look: tyro.conf.OmitArgPrefixes[Look] = Look(),
    figure: Figure = Path("arrows.png"),
) -> None:
    """Draw where descent would move and resize each window."""
    from glimpsenet.inspection.arrows import arrows as measure

    scene, loss, _, classes = observe(run, image, look)
    with refusals_are_wrong_usage():
        result = measure(scene, loss, classes=classes)
    result.save(figure)
    for glimpse, gradient in enumerate(result.gradient.tolist(), 2):
        say(
            f"glimpse {glimpse}: "
            + "  ".join(f"dL/d{n} {v:+.4g}" for n, v in zip(("s", "tx", "ty"), gradient, strict=True))
        )
    say(f"drew {figure}")


def sweep(
    run: RunFolder,
    image: ImageFile,
    /,
    *,
    look: tyro.conf.OmitArgPrefixes[Look] = Look(),
    glimpse: int = 2,
    parameter: Literal["s", "tx", "ty", "all"] = "all",
    points: int = 200,
    out: Path = Path("sweep"),
    gif: bool = False,
) -> None:
    """Run one parameter of a window over its range: loss, gradient, line of best fit.

    Args:
        glimpse: whose window, 1 is the first glimpse.
        parameter: s, tx, ty or all.
        points: how many.
        out: folder for PNG and CSV (and GIF) per parameter, and one PNG of all.
        gif: also animate the moving window.
    """
    from glimpsenet.inspection import sweep as tool
    from glimpsenet.inspection.figures import save_figure

    scene, loss, config, _ = observe(run, image, look)
    scale_range = config.model.scale_range
    results, refusals = [], []
    for name in tool.PARAMETERS if parameter == "all" else (parameter,):
        try:
            result = tool.sweep(scene, name, glimpse=glimpse, points=points, scale_range=scale_range, loss=loss)
        except tool.NoRoomError as error:
            refusals.append(str(error))
            continue
        except ValueError as error:
            raise SettingError(str(error)) from error
        results.append(result)
        for suffix in ("png", "csv"):
            result.save(out / f"{name}.{suffix}")
        if gif:
            tool.animate_sweep(scene, result, out / f"{name}.gif")
        verdict = "as wanted" if result.has_wanted_sign else "the wrong way"
        say(f"{name}: slope {result.slope:+.4g} ({verdict}), R^2 {result.r_squared:.3f}")
    if not results:
        raise SettingError("; ".join(refusals))
    for refusal in refusals:
        say(f"left out: {refusal}")
    save_figure(tool.plot_sweeps(results), out / "sweep.png")
    say(f"wrote {out}")


def field(
    run: RunFolder,
    image: ImageFile,
    /,
    *,
    look: tyro.conf.OmitArgPrefixes[Look] = Look(),
    glimpse: int = 2,
    points: int = 21,
    scale: float | None = None,
    figure: Figure = Path("field.png"),
) -> None:
    """Draw the loss over all places of a window, with the direction of descent.

    Args:
        glimpse: whose window, 1 is the first glimpse.
        points: places a side.
        scale: s of the window; what the model chose if not given.
    """
    from glimpsenet.inspection.field import field as measure

    scene, loss, *_ = observe(run, image, look)
    with refusals_are_wrong_usage():
        measure(scene, glimpse=glimpse, points=points, scale=scale, loss=loss).save(figure)
    say(f"drew {figure}")


def inject(
    run: RunFolder,
    image: ImageFile,
    /,
    *,
    windows: Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="GLIMPSE=s,tx,ty")],
    allow_outside: bool = False,
    device: Device = "auto",
    figure: Figure = Path("inject.png"),
) -> None:
    """Look where you say, and see what the model makes of it.

    Args:
        windows: one or more windows, as GLIMPSE=s,tx,ty; glimpses that are not named look for themselves.
        allow_outside: accept windows that leave the image.
        figure: picture to write: without and with the windows.
    """
    from glimpsenet.devices import choose_device
    from glimpsenet.inspection import injection
    from glimpsenet.inspection.photo import read_photo
    from glimpsenet.runs import load_run

    loaded = load_run(run, choose_device(device))
    picture = read_photo(loaded, image)
    chosen = injection.parse_windows(windows, loaded.model.num_glimpses, allow_outside=allow_outside)
    result = injection.inject(loaded.model, picture, chosen, classes=loaded.classes)
    for row in result.rows:
        answers = (
            f"{label} {value:.2f}" for glimpse in range(1, len(row.windows) + 1) for label, value in row.top(glimpse)
        )
        say(printable(f"{row.name}: {'  ->  '.join(answers)}"))
    result.save(figure)
    say(f"drew {figure}")


def scanpath(
    run: RunFolder,
    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE...")],
    /,
    *,
    figure: Figure = Path("scanpath.png"),
    device: Device = "auto",
) -> None:
    """Draw where the model looked in images, what it saw, and what it thought after each look.

    Args:
        images: image files and folders; of more than six, six are drawn, spread over their folders.
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
    say(f"drew {figure}")


def statistics(
    runs: RunFolders,
    /,
    *,
    figure: Figure = Path("statistics.png"),
) -> None:
    """Plot the localization network's weights, gradients and windows over training; several runs overlay."""
    from glimpsenet.inspection.figures import save_figure
    from glimpsenet.inspection.statistics import plot_statistics, read_statistics

    if not runs:
        raise SettingError("no runs to plot: name run folders")
    read = {os.path.normpath(run): read_statistics(run) for run in runs}
    save_figure(next(iter(read.values())).plot() if len(read) == 1 else plot_statistics(read), figure)
    say(f"drew {figure}")


def quality(
    runs: RunFolders,
    /,
    *,
    data: Path | None = None,
    generators: tuple[Literal["own", "bilinear", "mipmap", "linearized"], ...] = ("own",),
    images: int = 50,
    glimpse: int = 2,
    points: int = 100,
    loss: LossName = "last",
    policy: Literal["learned", "random", "oracle"] = "learned",
    seed: int = 0,
    device: Device = "auto",
    out: Path = Path("quality"),
) -> None:
    """Measure how useful the gradient of windows is, over many images: sign, line, agreement, noise.

    Args:
        runs: run folders, to compare.
        data: image folder with val/CLASS; each run's own validation images if not given.
        generators: how windows are sampled while measuring; "own" is the run's way.
        images: how many, spread over classes.
        glimpse: whose window, 1 is the first glimpse.
        points: of each sweep.
        loss: whose derivative.
        policy: around which windows: the model's, random ones (the same for all), or the boxes.
        seed: of the choice of images, of the random windows and of the confidence intervals.
        out: folder for quality.json and quality.png.
    """
    from glimpsenet.devices import choose_device
    from glimpsenet.files import write_json
    from glimpsenet.inspection.figures import save_figure
    from glimpsenet.inspection.quality import GradientQuality, compare_qualities, format_table
    from glimpsenet.inspection.run_quality import run_quality
    from glimpsenet.runs import load_run

    if not runs:
        raise SettingError("no runs to measure: name run folders")
    settings: dict[str, Any] = {
        "data": data,
        "images": images,
        "glimpse": glimpse,
        "points": points,
        "loss": loss,
        "seed": seed,
    }
    results: dict[str, GradientQuality] = {}
    for folder in runs:
        loaded = load_run(folder, choose_device(device))
        results |= run_quality(loaded, generators, around=policy, tell=say, **settings)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "quality.json", {name: result.to_dict() for name, result in results.items()})
    save_figure(compare_qualities(results), out / "quality.png")
    head, *rows = format_table(results)
    print_table("gradient quality, 95% intervals over images", head, rows)
    say(f"wrote {out}")


def dataset(
    run: RunFolder,
    /,
    *,
    data: Path | None = None,
    device: Device = "auto",
    out: Path = Path("dataset"),
) -> None:
    """Where the model looks over its whole validation set: density, distributions, coverage, examples.

    Args:
        data: image folder with val/CLASS; the run's own validation images if not given.
        out: folder for dataset.json, dataset.png and examples.png.
    """
    from glimpsenet.data.loading import InOrder, create_loader
    from glimpsenet.devices import choose_device
    from glimpsenet.inspection.dataset import scan_dataset
    from glimpsenet.inspection.figures import save_figure
    from glimpsenet.inspection.photo import validation_images
    from glimpsenet.runs import load_run

    loaded = load_run(run, choose_device(device))
    photos = validation_images(loaded, data)
    size, batches = loaded.config.model.image_size, create_loader(photos, InOrder(len(photos)), 64)
    with refusals_are_wrong_usage():
        paths = scan_dataset(loaded.model, batches, image_size=size, classes=loaded.classes)
    for name in ("dataset.json", "dataset.png"):
        paths.save(out / name)
    save_figure(paths.plot_examples(), out / "examples.png")
    say(f"wrote {out}")


INSPECT = {
    "arrows": arrows,
    "sweep": sweep,
    "field": field,
    "inject": inject,
    "scanpath": scanpath,
    "statistics": statistics,
    "quality": quality,
    "dataset": dataset,
}
