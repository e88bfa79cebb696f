"""The command line: thin over the library; everything heavy is imported inside a command."""

import contextlib
import csv
import inspect
import io
import json as json_module
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import tyro

from glimpsenet.bench.cli import bench_app
from glimpsenet.config import Config, check_seed
from glimpsenet.data.config import DataConfig, DigitsConfig
from glimpsenet.data.noise import one_warning
from glimpsenet.errors import DataWarning, FigureWarning, SettingError, UserError, did_you_mean, needs_extra, printable
from glimpsenet.inspection.cli import inspect_app
from glimpsenet.models.config import ModelConfig
from glimpsenet.recipes import RECIPES
from glimpsenet.tables import counted, print_table
from glimpsenet.training.config import TrainingConfig

if TYPE_CHECKING:
    from glimpsenet.inference import Prediction

app = tyro.extras.SubcommandApp()
DESCRIPTION = (
    "Image classification by glimpses. `glimpsenet COMMAND --help` explains a command; --debug shows tracebacks."
)
OPTIMISTIC = (
    "measured on val, which chose the checkpoint: expect less on new images; keep some in test/CLASS for a fair number"
)
OWN_WARNINGS = (DataWarning, FigureWarning)
RunFolder = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]


@dataclass(frozen=True)
class TrainingRun:
    """A recipe and where to run it."""

    model: Annotated[ModelConfig, tyro.conf.arg(name="")]
    data: Annotated[DataConfig, tyro.conf.arg(name="")]
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")]
    out: Path
    """Run folder. A finished run with these settings is left as it is; what was learned is not lost unasked."""
    seed: int = 0
    """Everything random follows from it, 0 to 2^32 - 1."""
    resume: bool = False
    """Go on after the last checkpoint in the run folder (or start, if there is none)."""
    overwrite: bool = False
    """Replace the run in the run folder, whatever it learned, once settings and data are checked."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    devices: int = 1
    """How many of them to train on, on each machine."""
    num_nodes: int = 1
    """Machines; start the same command on each (torchrun, SLURM)."""

    @classmethod
    def of(cls, name: str, config: Config) -> "TrainingRun":
        """A recipe's."""
        return cls(config.model, config.data, config.training, Path("runs") / name, config.seed)

    @property
    def config(self) -> Config:
        """The experiment."""
        return Config(model=self.model, data=self.data, training=self.training, seed=self.seed)


if TYPE_CHECKING:
    Recipe = TrainingRun
else:
    Recipe = tyro.extras.subcommand_type_from_defaults(
        {name: TrainingRun.of(name, recipe()) for name, recipe in RECIPES.items()},
        {name: inspect.cleandoc(recipe.__doc__ or "") for name, recipe in RECIPES.items()},
        prefix_names=False,
    )


@app.command
def train(recipe: Recipe) -> None:
    """Train a recipe; leaves a run folder with weights, metrics and logs."""
    from glimpsenet.training.fit import fit
    from glimpsenet.training.run_folder import finished_summary

    complete = not recipe.overwrite and finished_summary(recipe.config, recipe.out) is not None
    summary = fit(
        recipe.config,
        recipe.out,
        resume=recipe.resume,
        overwrite=recipe.overwrite,
        device=recipe.device,
        devices=recipe.devices,
        num_nodes=recipe.num_nodes,
    )
    if summary:
        if complete:
            _say(f"{recipe.out} holds this run already, complete: nothing was trained")
        # While training, validation computes as training does, in bfloat16 where the device has it.
        _say(f"best on validation, at step {summary['best_step']} of {summary['steps']}; measured in float32:")
        _print_evaluations({"learned": summary["metrics"]}, None, "val")
        if summary["test_metrics"] is None:
            _say(OPTIMISTIC)
        else:
            _say("the same on the test images, which chose nothing:")
            _print_evaluations({"learned": summary["test_metrics"]}, None, "test")
        if summary["skipped_images"]:
            _say(f"skipped {counted(len(summary['skipped_images']), 'unreadable image')}, named in summary.json")
        _say(f"the run is in {recipe.out}")


@app.command
def evaluate(
    run: RunFolder,
    /,
    *,
    glimpses: Literal["learned", "random", "center", "none", "oracle", "all"] = "learned",
    data: Path | None = None,
    split: Literal["val", "test"] | None = None,
    batch_size: int = 64,
    workers: int = 0,
    seed: int = 0,
    skip_bad: bool = False,
    device: str = "auto",
    figure: Path | None = None,
    json: bool = False,
) -> None:
    """Measure a run on its test images or, where there are none, on its validation images.

    Args:
        run: run folder.
        glimpses: who looks: the trained policy, chance, the centre, nobody after the first look, the boxes, or all.
        data: another folder with val/CLASS/*.jpg (and test/CLASS/*.jpg, boxes.csv).
        split: images to measure on; test if not given and there are any. The checkpoint was chosen on val, so figures
            from there are optimistic.
        batch_size: images at a time.
        workers: processes that read images.
        seed: of random glimpses.
        skip_bad: skip unreadable images, and count them.
        device: auto, cpu, cuda, cuda:1, mps.
        figure: draw the confusion matrix to this file (png, pdf, svg).
        json: one JSON object on standard output.
    """
    _require_at_least(batch_size=(batch_size, 1), workers=(workers, 0))
    _require_picture(figure)
    check_seed(seed)
    with _standard_output(json) as output:
        from glimpsenet.data.loading import InOrder, create_loader, open_data, workers_that_die
        from glimpsenet.devices import choose_device
        from glimpsenet.evaluation import accuracy
        from glimpsenet.runs import load_run

        loaded = load_run(run, choose_device(device))
        config = loaded.config
        if data is not None:
            config = config.with_data(data)
        splits = open_data(config, loaded.classes, loaded.channels)
        name, images = splits.held_out(split)
        loader = create_loader(images, InOrder(len(images)), batch_size, workers=workers)
        settings: dict[str, Any] = {
            "scale_range": config.model.scale_range,
            "image_size": config.model.image_size,
            "classes": loaded.classes,
            "seed": seed,
            "skip_bad": skip_bad,
        }
        if glimpses == "oracle" and not images.has_boxes:
            raise UserError(f"the oracle needs to know where to look: there is no boxes.csv for the {name} images")
        with workers_that_die():
            if glimpses == "all":
                result = accuracy.evaluate_all(loaded.model, loader, has_boxes=images.has_boxes, **settings)
                results, share = result["policies"], result["glimpse_gain_share"]
            else:
                result = accuracy.evaluate(loaded.model, loader, glimpses=glimpses, **settings)
                results, share = {glimpses: result}, None
        shown = results.get("learned") or results[glimpses]
        if figure is not None:
            from glimpsenet.inspection.figures import plot_confusion, save_figure

            if shown["confusion_matrix"] is None:
                raise UserError(f"a confusion matrix of {len(loaded.classes)} classes is too large to draw")
            save_figure(plot_confusion(shown["confusion_matrix"], loaded.classes), figure)
        if json:
            print(json_module.dumps({**result, "split": name}), file=output)
            return
        _print_evaluations(results, share, name)
        if name == "val":
            _say(OPTIMISTIC)
        if skipped := shown["skipped"]:
            _say(f"skipped {counted(len(skipped), 'unreadable image')}; the first: {printable(skipped[0])}")
        _print_classes(shown, loaded.classes)
        if figure is not None:
            _say(f"drew {figure}")


@app.command
def predict(
    run: RunFolder,
    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE_OR_FOLDER...")],
    /,
    *,
    top: int = 3,
    exit_confidence: float = 1.0,
    figure: Path | None = None,
    batch_size: int = 32,
    skip_bad: bool = False,
    device: str = "auto",
    json: bool = False,
    csv: bool = False,
) -> None:
    """Classify image files, or all images of folders, and draw where the model looked.

    Args:
        run: run folder.
        images: image files and folders.
        top: classes told for each image.
        exit_confidence: stop looking at an image once its class is more probable than this; 1 takes all glimpses.
        figure: draw scanpaths to this file (png, pdf, svg): of six images, spread over their folders.
        batch_size: images at a time.
        skip_bad: skip unreadable images, and count them.
        device: auto, cpu, cuda, cuda:1, mps.
        json: one JSON object on standard output.
        csv: CSV on standard output.
    """
    if json and csv:
        raise SettingError("--json or --csv, not both")
    if not images:
        raise SettingError("no images to classify: name files or folders after the run")
    _require_at_least(top=(top, 1), batch_size=(batch_size, 1))
    _require_picture(figure)
    with _standard_output(json or csv) as output:
        from glimpsenet.data.finding import find_images
        from glimpsenet.data.spread import spread_over_folders
        from glimpsenet.devices import choose_device
        from glimpsenet.inference import ExitRule, Unreadable
        from glimpsenet.inference import predict as classify
        from glimpsenet.inspection.scanpath import MAX_ROWS, gather
        from glimpsenet.runs import load_run

        rule = ExitRule(exit_confidence)
        loaded = load_run(run, choose_device(device))
        files = find_images(*images)
        rows: list[dict[str, Any]] = []
        readable: list[Path] = []
        skipped: list[str] = []
        for prediction in classify(loaded, files, batch_size=batch_size, rule=rule):
            if isinstance(prediction, Unreadable):
                if not skip_bad:
                    raise UserError(f"{prediction.problem}; remove the file or pass --skip-bad")
                skipped.append(prediction.problem)
                continue
            rows.append(_describe(prediction, top))
            readable.append(prediction.file)
        if not rows:
            raise UserError(f"no readable image among {counted(len(files), 'file')}; the first: {skipped[0]}")
        drawn = [] if figure is None else spread_over_folders(readable, MAX_ROWS, loaded.config.seed)
        if drawn and figure is not None:
            again = classify(loaded, drawn, rule=rule)  # rather than keep the pictures of a whole folder
            gather([prediction for prediction in again if not isinstance(prediction, Unreadable)]).save(figure)
        if json:
            print(json_module.dumps({"predictions": rows, "skipped": skipped}), file=output)
        elif csv:
            print(_to_csv(rows), end="", file=output)
        else:
            _print_predictions(rows, early_exit=exit_confidence < 1)
        for problem in skipped:
            print(f"skipped: {printable(problem)}", file=sys.stderr)
        if drawn:
            note = f" ({len(drawn)} of {len(rows)} images)" if len(drawn) < len(rows) else ""
            print(f"drew {figure}{note}", file=sys.stderr if json or csv else sys.stdout)


@app.command
def summary(run: RunFolder, /) -> None:
    """Show a run's model: parts, shapes, parameters, operations after each glimpse.

    Args:
        run: run folder.
    """
    from glimpsenet.evaluation.summary import summary as summarize
    from glimpsenet.runs import load_run

    loaded = load_run(run)
    _say(f"{loaded.model!r}\n\n{summarize(loaded.model, loaded.config.model.image_size)}")


@app.command
def export(
    run: RunFolder,
    /,
    *,
    format: Literal["onnx", "pt2"] = "onnx",
    out: Path | None = None,
    stepwise: bool = False,
    opset: int | None = None,
) -> None:
    """Write a run's model for programs without this library; it takes raw images, 0..1, and carries its class names.

    Args:
        run: run folder.
        format: onnx, or pt2 (torch.export).
        out: file to write; model.onnx or model.pt2 in the run folder if not given.
        stepwise: one file a glimpse (NAME.step1.onnx, ...) instead of one for all, to stop early.
        opset: ONNX operator set, 18 to 23; 18 if not given, which TensorRT too computes correctly.
    """
    out = run / f"model.{format}" if out is None else out
    if out.suffix != f".{format}":
        raise SettingError(f"--out {out}: a file of format {format} ends in .{format}")
    from glimpsenet.inference.export import export as write
    from glimpsenet.runs import load_run

    for file in write(load_run(run), out, format, stepwise=stepwise, opset=opset):
        _say(f"wrote {file}, {file.stat().st_size / 1e6:.1f} MB, which computes the same as {run}")


@app.command
def push(
    run: RunFolder,
    repo_id: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="USER/NAME")],
    /,
    *,
    private: bool = False,
) -> None:
    """Share a run on the Hugging Face Hub, with a model card made from what was measured.

    Args:
        run: run folder; a README.md in it goes before a new model card.
        repo_id: repository on the Hub; made if there is none.
        private: make it one that only you see, if it is new.
    """
    _require_repository(repo_id)
    from glimpsenet.runs import load_run

    _say(f"pushed {run} to {load_run(run).push_to_hub(repo_id, private=private or None)}")


@app.command
def pull(
    repo_id: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="USER/NAME")],
    run: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="RUN")] = None,
    /,
    *,
    revision: str | None = None,
) -> None:
    """Make a run folder of a shared model; runs no code of it.

    Args:
        repo_id: repository on the Hugging Face Hub.
        run: a new run folder; runs/NAME if not given.
        revision: branch, tag or commit; the newest if not given.
    """
    _require_repository(repo_id)
    run = Path("runs") / repo_id.split("/")[1] if run is None else run
    if run.exists():
        raise UserError(f"{run} is there already; name another folder: glimpsenet pull {repo_id} RUN")
    from glimpsenet.runs import Run

    aside = run.with_name(f".{run.name}.part")
    Run.from_pretrained(repo_id, revision=revision).save_pretrained(aside)
    aside.rename(run)
    _say(f"pulled {repo_id} to {run}")


@app.command
def reproduce(
    *,
    rows: tuple[str, ...] = (),
    data: Path | None = None,
    out: Path = Path("runs/reproduction"),
    records: Path | None = None,
    seeds: int = 1,
    max_steps: int | None = None,
    image_size: int | None = None,
    backbone: str | None = None,
    backbone_weights: Path | None = None,
    device: str = "auto",
) -> None:
    """Train the rows of the paper's Table 1 and report them beside the paper's numbers; goes on where it stopped.

    Args:
        rows: names of rows; all eight, one of ours and the plain backbone if none is given.
        data: image folder with train/CLASS and val/CLASS; digit scenes if not given.
        out: folder of the runs and the report.
        records: folder of one JSON a finished run, which is not trained again; OUT/records if not given.
        seeds: how often to train each row.
        max_steps: optimiser steps a row; 800 on digits, 12 epochs on a folder if not given.
        image_size: side of the images in pixels; glimpses keep their share.
        backbone: a timm model for all rows.
        backbone_weights: weights the pretrained rows start from.
        device: auto, cpu, cuda, cuda:1, mps.
    """
    from glimpsenet.reproduction.rows import ROWS, Setting

    _require_at_least(seeds=(seeds, 1), max_steps=(1 if max_steps is None else max_steps, 1))
    setting = Setting(data, max_steps, image_size, backbone, backbone_weights)
    from glimpsenet.provenance import typed_command
    from glimpsenet.reproduction.report import write_report
    from glimpsenet.reproduction.run import train_rows

    found = train_rows(rows or ROWS, out, setting, seeds=seeds, records=records, device=device, tell=_say)
    report = write_report(found, out, setting, command=typed_command())
    print_table(
        f"accuracy after the last glimpse, {report['data']}",
        ["row", "seeds", "here", "first look", "random", "mean s"],
        [
            [
                row,
                str(values["seeds"]),
                *(f"{values[name]:.3f}" for name in ("accuracy", "first_look", "random")),
                f"{values['affine_mean'][0]:.2f}",
            ]
            for row, values in report["rows"].items()
        ],
    )
    _say(f"the report is in {out / 'report.md'} and {out / 'report.html'}")


@app.command
def demo(
    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN...")] = (),
    /,
    *,
    examples: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
) -> None:
    """Open a web page to play with runs: watch them look, move their windows, compare them.

    Args:
        runs: run folders, side by side if several; a small digit model that comes with the package if none is given.
        examples: folder of images that visitors may pick; the run's own validation images if not given and only this
            machine can ask.
        host: address to listen at; others than this machine's own let everybody in who can reach it.
        port: to listen at; 0 takes any that is free.
        device: auto, cpu, cuda, cuda:1, mps.
    """
    with needs_extra("the demo", "demo"):
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    from glimpsenet.demo.examples import choose_examples
    from glimpsenet.demo.exhibit import SHIPPED, open_exhibits
    from glimpsenet.demo.server import build_app, is_loopback, serve

    exhibits = open_exhibits(runs or (SHIPPED,), device)
    pictures = choose_examples(exhibits[0].run, examples, public=not is_loopback(host))
    serve(build_app(exhibits, pictures, host), host, port, _say)


app.command(inspect_app, name="inspect", help="See where a run looks, and why: windows, gradients, sweeps.")
app.command(bench_app, name="bench", help="Measure and compare: localization, speed, scaling, early exit, robustness.")
data_app = tyro.extras.SubcommandApp()
app.command(data_app, name="data", help="Make data sets: digit scenes, shards, ImageNet100, ImageNet-C.")


@data_app.command(name="digits")
def data_digits(
    destination: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DEST")],
    /,
    *,
    scenes: tyro.conf.OmitArgPrefixes[DigitsConfig] = DigitsConfig(train_scenes=1000, val_scenes=200, test_scenes=200),  # noqa: B008
    image_size: int = 80,
    seed: int = 0,
) -> None:
    """Write digit scenes as an image folder with boxes.csv: something to try image-folder and predict on.

    Args:
        destination: a new folder.
        scenes: what they are like.
        image_size: side of a scene in pixels.
        seed: of the training scenes.
    """
    from glimpsenet.data.digits import write_scenes

    check_seed(seed)
    count = write_scenes(destination, scenes, image_size, seed)
    _say(f"wrote {count} scenes to {destination}")


@data_app.command(name="shards")
def data_shards(
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")],
    destination: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DEST")],
    /,
    *,
    samples: int = 2000,
    seed: int = 0,
) -> None:
    """Pack an image folder into WebDataset shards, which --data takes like a folder; boxes stay behind.

    Args:
        source: image folder with train/CLASS and val/CLASS.
        destination: a new folder.
        samples: images a shard.
        seed: of the order of training images, so that a shard holds all classes.
    """
    from glimpsenet.data.shards import write_shards

    check_seed(seed)
    _require_at_least(samples=(samples, 1))
    count = write_shards(source, destination, samples, seed)
    _say(f"wrote {count} images to {destination}")


@data_app.command(name="imagenet100")
def data_imagenet100(
    imagenet: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGENET")],
    destination: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DEST")],
    /,
) -> None:
    """Make ImageNet100, the report's data, from a copy of ImageNet-1k: links to its first 100 classes.

    Args:
        imagenet: folder with train/ and val/ of 1,000 class folders each.
        destination: where to make it; safe to run twice.
    """
    from glimpsenet.data.imagenet import build_imagenet100

    _say_links(destination, build_imagenet100(imagenet, destination))


@data_app.command(name="imagenet-c")
def data_imagenet_c(
    imagenet_c: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGENET-C")],
    destination: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DEST")],
    /,
) -> None:
    """The same classes of ImageNet-C: links to 15 corruptions at five severities.

    Args:
        imagenet_c: folder with CORRUPTION/SEVERITY/CLASS, or those in groups (blur, noise, ...).
        destination: where to make it; safe to run twice.
    """
    from glimpsenet.data.imagenet import build_imagenet100_c

    _say_links(destination, build_imagenet100_c(imagenet_c, destination))


def _say_links(destination: Path, links: Any) -> None:
    _say(f"{destination}: {links.made} class folders linked, {links.kept} were there")


@app.command(name="import-mgnet")
def import_mgnet(
    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CKPT")],
    run: RunFolder,
    /,
    *,
    backbone: str = "resnet18",
    num_glimpses: int = 4,
    image_size: int = 224,
    scale_factor: float = 2.33,
    scale_range: tuple[float, float] = (0.2, 0.5),
    data: Path | None = None,
) -> None:
    """Turn a checkpoint of MGNet into a run folder; runs no code of the file.

    Args:
        checkpoint: MGNet's Lightning checkpoint, or a plain state dict.
        run: a new run folder.
        backbone: the ResNet it has.
        num_glimpses: T, the first look included.
        image_size: side of its images in pixels.
        scale_factor: its glimpses are image_size // scale_factor pixels.
        scale_range: smallest and largest s.
        data: a folder with val/CLASS, to name the classes by; they are numbered otherwise.
    """
    from glimpsenet.data.finding import LeftOut, find_classes
    from glimpsenet.runs import mgnet

    names = None
    if data is not None:
        if not (data / "val").is_dir():
            raise UserError(f"no folder {data / 'val'} to name the classes by")
        left_out = LeftOut()
        names = sorted(find_classes(data / "val", left_out))  # MGNet's order is torchvision's, not the natural one
        left_out.warn()
    ignored = mgnet.import_mgnet(
        checkpoint,
        run,
        classes=names,
        backbone=backbone,
        num_glimpses=num_glimpses,
        image_size=image_size,
        scale_factor=scale_factor,
        scale_range=scale_range,
    )
    if ignored:
        _say(f"ignored {len(ignored)} keys that are not the model's: {', '.join(ignored[:5])}")
    _say(f"imported {checkpoint} to {run}")


@contextlib.contextmanager
def _standard_output(clean: bool) -> Iterator[TextIO]:
    """Standard output for the result; with ``clean`` whatever a library prints meanwhile goes to standard error."""
    if not clean:
        yield sys.stdout
        return
    sys.stdout.flush()
    keep = os.dup(1)
    os.dup2(2, 1)
    try:
        # File names that are no UTF-8 leave as the bytes they are.
        with open(keep, "w", closefd=False, encoding="utf-8", errors="surrogateescape") as output:
            yield output
    finally:
        sys.stdout.flush()
        os.dup2(keep, 1)
        os.close(keep)


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Warnings of this library reach standard error as one line each, none twice; all others as Python shows them."""
    told: set[str] = set()
    show = warnings.showwarning

    def tell(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        text = printable(" ".join(str(message).split()))
        if not issubclass(category, OWN_WARNINGS):
            show(message, category, *where, **more)
        elif text not in told:
            told.add(text)
            print(f"glimpsenet: warning: {text}", file=sys.stderr)

    with warnings.catch_warnings():
        for category in OWN_WARNINGS:
            warnings.simplefilter("always", category)
        warnings.showwarning = tell
        yield


def _require_at_least(**flags: tuple[int, int]) -> None:
    for name, (value, least) in flags.items():
        if value < least:
            raise SettingError(f"--{name.replace('_', '-')} must be {least} or more, got {value}")


def _require_repository(repo_id: str) -> None:
    user, _, name = repo_id.partition("/")
    if not user or not name or "/" in name:
        raise SettingError(f"a model on the Hub is called USER/NAME, not {repo_id!r}")


def _require_picture(file: Path | None) -> None:
    if file is not None and file.suffix not in (".png", ".pdf", ".svg"):
        raise SettingError(f"--figure {file}: pictures are written as .png, .pdf or .svg")


def _say(text: str) -> None:
    print(text)


def _describe(prediction: "Prediction", top: int) -> dict[str, Any]:
    name, probability = prediction.top(-1)[0]
    return {
        "file": os.fspath(prediction.file),
        "class": name,
        "probability": probability,
        "top": [{"class": name, "probability": value} for name, value in prediction.top(-1, top)],
        "steps": [
            {
                "step": step,
                "class": prediction.top(step)[0][0],
                "probability": prediction.top(step)[0][1],
                "affine": prediction.affine[step - 1].tolist(),
                "box": prediction.boxes[step - 1].tolist(),
            }
            for step in range(1, len(prediction.affine) + 1)
        ],
    }


def _to_csv(rows: list[dict[str, Any]]) -> str:
    """One line an image: file, class, probability, then class and window (photo pixels) of every step."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    steps = max((len(row["steps"]) for row in rows), default=0)
    names = [f"{name}_{step}" for step in range(1, steps + 1) for name in ("class", "x0", "y0", "x1", "y1")]
    writer.writerow(["file", "class", "probability", *names])
    for row in rows:
        looks = [value for s in row["steps"] for value in (s["class"], *(f"{edge:.1f}" for edge in s["box"]))]
        looks += [""] * (5 * steps - len(looks))  # after an early exit
        writer.writerow([row["file"], row["class"], f"{row['probability']:.4f}", *looks])
    return text.getvalue()


def _print_predictions(rows: list[dict[str, Any]], early_exit: bool) -> None:
    table = [[row["file"], row["class"], f"{row['probability']:.2f}", row["steps"][0]["class"]] for row in rows]
    columns = ["file", "class", "probability", "after the first look"]
    if early_exit:
        columns.append("glimpses")
        table = [[*cells, str(len(row["steps"]))] for cells, row in zip(table, rows, strict=True)]
    print_table(counted(len(rows), "image"), columns, table)


def _print_evaluations(results: dict[str, dict[str, Any]], gain_share: float | None, split: str) -> None:
    steps = max(len(result["accuracy"]) for result in results.values())

    def cells(values: list[float] | None, skip_first: bool = False) -> list[str]:
        shown = [f"{value:.3f}" for value in values or []]
        if skip_first and shown:
            shown[0] = ""
        return shown + [""] * (steps - len(shown))

    rows: list[list[str]] = []
    for name, result in results.items():
        rows.append([f"{name}: accuracy", *cells(result["accuracy"])])
        if len(result["accuracy"]) > 1:
            rows.append(["  mean scale", *cells(result["mean_scale"])])
            if result["hit_rate"] is not None:
                rows.append(["  hit rate", *cells(result["hit_rate"], skip_first=True)])
                rows.append(["  found so far", *cells(result["found_rate"], skip_first=True)])
    images = next(iter(results.values()))["num_images"]
    print_table(counted(images, f"{split} image"), ["glimpses", *(f"step {s}" for s in range(1, steps + 1))], rows)
    learned, none = (results[name]["accuracy"][-1] if name in results else 0.0 for name in ("learned", "none"))
    if "none" in results and learned - none < 0.01:
        _say(f"glimpses bring {100 * (learned - none):+.1f} points: too little to ask where they come from")
    elif gain_share is not None:
        _say(f"share of the glimpses' gain that is due to where the model looked: {gain_share:.0%}")


def _print_classes(result: dict[str, Any], classes: list[str]) -> None:
    """Accuracy per class, worst first, with what it is mostly taken for."""
    matrix = result["confusion_matrix"]
    if matrix is None:
        _say(f"the accuracy of each of {len(classes)} classes is in --json")
        return
    rows: list[list[str]] = []
    for place in sorted(range(len(classes)), key=lambda place: (result["per_class"][classes[place]] or 0, place)):
        rate, counts = result["per_class"][classes[place]], matrix[place]
        if rate is None:
            continue
        wrong = sorted(((n, c) for c, n in enumerate(counts) if n and c != place), key=lambda pair: (-pair[0], pair[1]))
        taken = ", ".join(f"{classes[column]} ({count})" for count, column in wrong[:3])
        rows.append([classes[place], f"{rate:.3f}", str(sum(counts)), taken])
    title = f"per class ({result['policy']}), worst first"
    if len(rows) > 20:
        title += f"; 20 of {len(rows)}, all in --json"
    print_table(title, ["class", "accuracy", "images", "mostly taken for"], rows[:20])


def _run(arguments: Sequence[str], *, quiet: bool) -> None:
    """Parse and run; ``quiet`` keeps tyro's help and most of its boxes back."""
    app.cli(
        prog="glimpsenet",
        description=DESCRIPTION,
        args=arguments,
        console_outputs=not quiet,
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.AvoidSubcommands),
    )


def _told(arguments: Sequence[str], *, quiet: bool) -> str:
    """What :func:`_run` writes of arguments that run nothing."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text), contextlib.suppress(SystemExit):
        _run(arguments, quiet=quiet)
    return text.getvalue()


def _run_or_name_the_misspelt(arguments: Sequence[str]) -> None:
    """A word that nothing is called by is told in one line, all other wrong usage in tyro's box."""
    asks = not {"-h", "--help"}.isdisjoint(arguments)
    try:
        _run(arguments, quiet=not asks)
    except SystemExit as stop:
        # A value of the wrong type is told whether tyro is quiet or not.
        if stop.code == 2 and not asks and not _told(arguments, quiet=True):
            _check_spelling(arguments)
            _run(arguments, quiet=False)
        raise


def _check_spelling(arguments: Sequence[str]) -> None:
    """Refuse the first command, recipe or flag that there is none of."""
    path: list[str] = []
    while commands := re.match(r"usage: .*\{(.*)\}", text := _told([*path, "--help"], quiet=False)):
        word, names = next(iter(arguments[len(path) :]), "-"), commands[1].split(",")
        if word.startswith("-"):
            return
        if word not in names:
            kind = "recipe" if path == ["train"] else "command"
            raise SettingError(f"no {kind} '{word}'; {did_you_mean(word, names)}")
        path.append(word)
    known = re.findall(r"--[\w-]+", text)
    for word in arguments[len(path) :]:
        flag = word.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag not in known:
            lists = f"{' '.join(['glimpsenet', *path])} --help lists them"
            raise SettingError(f"no flag '{flag}'; {did_you_mean(flag, known, lists)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. Exits with 0 (done), 1 (failed, one line says why) or 2 (wrong usage)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: no file name may end a command
    try:
        with _warnings_in_one_line(), one_warning():
            _run_or_name_the_misspelt(arguments)
    except UserError as error:
        if debug:
            raise
        print(f"glimpsenet: error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(2 if isinstance(error, SettingError) else 1)
    except BrokenPipeError:
        # Whoever read our output has seen enough (head).
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except KeyboardInterrupt:
        print("glimpsenet: interrupted; --resume goes on with a training run", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        way = "" if isinstance(error, OSError) else "; --debug shows where, for a report"
        print(f"glimpsenet: error: {printable(what)}{way}", file=sys.stderr)
        sys.exit(1)
