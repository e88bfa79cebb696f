"""``glimpsenet inspect``: see where a run looks, and why."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from glimpsenet.cli.arguments import FLAT, Device, Figure, ImageFile, RunFolder, RunFolders, load, load_all
from glimpsenet.cli.errors import refusals_are_wrong_usage
from glimpsenet.cli.output import say
from glimpsenet.errors import SettingError, printable
from glimpsenet.inspection.config import FieldSettings, Look, QualitySettings, SweepSettings

Looking = Annotated[Look, FLAT]


def arrows(
    run: RunFolder,
    image: ImageFile,
    /,
    *,
    look: Looking = Look(),
    device: Device = "auto",
    figure: Figure = Path("arrows.png"),
) -> None:
    """Draw where descent would move and resize each window."""
    from glimpsenet.inspection.arrows import arrows as measure
    from glimpsenet.inspection.photo import observe_photo

    loaded = load(run, device)
    scene, loss = observe_photo(loaded, image, look, tell=say)
    with refusals_are_wrong_usage():
        result = measure(scene, loss, classes=loaded.classes)
    result.save(figure)
    for glimpse, gradient in enumerate(result.gradient.tolist(), 2):
        slopes = zip(("s", "tx", "ty"), gradient, strict=True)
        say(f"glimpse {glimpse}: " + "  ".join(f"dL/d{name} {slope:+.4g}" for name, slope in slopes))
    say(f"drew {figure}")


def sweep(
    run: RunFolder,
    image: ImageFile,
    /,
    *,
    look: Looking = Look(),
    settings: Annotated[SweepSettings, FLAT] = SweepSettings(),
    gif: bool = False,
    device: Device = "auto",
    out: Path = Path("sweep"),
) -> None:
    """Run one parameter of a window over its range: loss, gradient, line of best fit.

    Args:
        gif: also animate the moving window.
        out: folder for PNG and CSV (and GIF) per parameter, and one PNG of all.
    """
    from glimpsenet.inspection import sweep as tool
    from glimpsenet.inspection.photo import observe_photo

    loaded = load(run, device)
    scene, loss = observe_photo(loaded, image, look, tell=say)
    with refusals_are_wrong_usage():
        results, left_out = tool.sweep_all(scene, settings, scale_range=loaded.config.model.scale_range, loss=loss)
    tool.save_sweeps(scene, results, out, gif=gif)
    say(*(result.verdict for result in results), *(f"left out: {refusal}" for refusal in left_out), f"wrote {out}")


def field(
    run: RunFolder,
    image: ImageFile,
    /,
    *,
    look: Looking = Look(),
    settings: Annotated[FieldSettings, FLAT] = FieldSettings(),
    device: Device = "auto",
    figure: Figure = Path("field.png"),
) -> None:
    """Draw the loss over all places of a window, with the direction of descent."""
    from glimpsenet.inspection.field import field as measure
    from glimpsenet.inspection.photo import observe_photo

    scene, loss = observe_photo(load(run, device), image, look, tell=say)
    with refusals_are_wrong_usage():
        measure(scene, **vars(settings), loss=loss).save(figure)
    say(f"drew {figure}")


def inject(
    run: RunFolder,
    image: ImageFile,
    /,
    *,
    windows: Annotated[tuple[str, ...], arg(name="set", metavar="GLIMPSE=s,tx,ty")],
    allow_outside: bool = False,
    device: Device = "auto",
    figure: Figure = Path("inject.png"),
) -> None:
    """Look where you say, and see what the model makes of it.

    Args:
        windows: one or more windows, as GLIMPSE=s,tx,ty; the model chooses those of other glimpses.
        allow_outside: accept windows that leave the image.
        figure: picture to write: without and with the windows.
    """
    from glimpsenet.inspection import injection
    from glimpsenet.inspection.photo import read_photo

    loaded = load(run, device)
    picture = read_photo(loaded, image)
    chosen = injection.parse_windows(windows, loaded.model.num_glimpses, allow_outside=allow_outside)
    result = injection.inject(loaded.model, picture, chosen, classes=loaded.classes)
    for row in result.rows:
        tops = (row.top(glimpse)[0] for glimpse in range(1, len(row.windows) + 1))
        say(printable(f"{row.name}: {'  ->  '.join(f'{label} {value:.2f}' for label, value in tops)}"))
    result.save(figure)
    say(f"drew {figure}")


def scanpath(
    run: RunFolder,
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE...")],
    /,
    *,
    figure: Figure = Path("scanpath.png"),
    device: Device = "auto",
) -> None:
    """Draw where the model looked in images, what it saw, and its answer after each glimpse.

    Args:
        images: image files and folders; of more than six, six are drawn, spread over their folders.
    """
    from glimpsenet.data.finding import find_images
    from glimpsenet.inspection.scanpath import draw_files

    files = find_images(*images)
    if not files:
        raise SettingError("no images to draw: name files or folders after the run")
    draw_files(load(run, device), files, figure)
    say(f"drew {figure}")


def statistics(runs: RunFolders, /, *, figure: Figure = Path("statistics.png")) -> None:
    """Plot the localization network's weights, gradients and windows over training; several runs overlay."""
    from glimpsenet.inspection.statistics import draw_statistics

    draw_statistics(runs, figure)
    say(f"drew {figure}")


def quality(
    runs: RunFolders,
    /,
    *,
    data: Path | None = None,
    settings: Annotated[QualitySettings, FLAT] = QualitySettings(),
    device: Device = "auto",
    out: Path = Path("quality"),
) -> None:
    """Measure how useful the gradient of windows is, over many images: sign, line, agreement, noise.

    Args:
        runs: run folders, to compare.
        data: image folder with val/CLASS; each run's own validation images if not given.
        out: folder for quality.json and quality.png.
    """
    from glimpsenet.inspection.quality import quality_table, save_qualities
    from glimpsenet.inspection.run_quality import run_quality

    measured = (run_quality(run, settings, data=data, tell=say) for run in load_all(runs, device))
    results = {name: quality for part in measured for name, quality in part.items()}
    save_qualities(results, out)
    say(quality_table(results), f"wrote {out}")


def dataset(
    run: RunFolder, /, *, data: Path | None = None, device: Device = "auto", out: Path = Path("dataset")
) -> None:
    """Where the model looks over its whole validation set: density, distributions, coverage, examples.

    Args:
        data: image folder with val/CLASS; the run's own validation images if not given.
        out: folder for dataset.json, dataset.png and examples.png.
    """
    from glimpsenet.inspection.dataset import scan_run

    loaded = load(run, device)
    with refusals_are_wrong_usage():
        scan_run(loaded, data).save_all(out)
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
