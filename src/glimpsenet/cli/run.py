"""``glimpsenet evaluate``, ``predict``, ``summary`` and ``export``: a run in use."""

import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from glimpsenet.cli.arguments import BatchSize, Device, Json, RunFolder, SkipBad, at_least, check_picture
from glimpsenet.cli.output import say, standard_output
from glimpsenet.cli.train import OPTIMISTIC
from glimpsenet.config import check_seed
from glimpsenet.errors import SettingError, UnreadableImageError, UserError, printable
from glimpsenet.tables import counted, print_table


def evaluate(
    run: RunFolder,
    /,
    *,
    policy: Literal["learned", "random", "center", "none", "oracle", "all"] = "learned",
    data: Path | None = None,
    split: Literal["val", "test"] | None = None,
    batch_size: BatchSize = 64,
    workers: int = 0,
    seed: int = 0,
    skip_bad: SkipBad = False,
    device: Device = "auto",
    figure: Path | None = None,
    json: Json = False,
) -> None:
    """Measure a run on its test images or, where there are none, on its validation images.

    Args:
        policy: learned, random, center, none (the first glimpse only), oracle (the boxes), or all of them.
        data: another folder with val/CLASS/*.jpg (and test/CLASS/*.jpg, boxes.csv).
        split: images to measure on; test if not given and there are any. The checkpoint was chosen on val, so figures
            from there are optimistic.
        workers: processes that read images.
        seed: of random windows.
        figure: draw the confusion matrix to this file (png, pdf, svg).
    """
    at_least(1, batch_size=batch_size)
    at_least(0, workers=workers)
    check_picture(figure)
    check_seed(seed)
    with standard_output(json) as output:
        from glimpsenet.devices import choose_device
        from glimpsenet.evaluation.run import evaluate_run
        from glimpsenet.evaluation.tables import class_table, evaluation_table, gain_line
        from glimpsenet.runs import load_run

        loaded = load_run(run, choose_device(device))
        settings: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "seed": seed, "skip_bad": skip_bad}
        result = evaluate_run(loaded, policy, data=data, split=split, **settings)
        results = result.get("policies") or {policy: result}
        shown = results.get("learned") or results[policy]
        if figure is not None:
            from glimpsenet.inspection.figures import plot_confusion, save_figure

            if shown["confusion_matrix"] is None:
                raise UserError(f"a confusion matrix of {len(loaded.classes)} classes is too large to draw")
            save_figure(plot_confusion(shown["confusion_matrix"], loaded.classes), figure)
        if json:
            print(json_module.dumps(result), file=output)
            return
        print_table(*evaluation_table(results, result["split"]))
        if line := gain_line(results, result.get("gain_due_to_placement")):
            say(line)
        if result["split"] == "val":
            say(OPTIMISTIC)
        if skipped := shown["skipped"]:
            say(f"skipped {counted(len(skipped), 'unreadable image')}; the first: {printable(skipped[0])}")
        if classes := class_table(shown, loaded.classes):
            print_table(*classes)
        else:
            say(f"the accuracy of each of {len(loaded.classes)} classes is in --json")
        if figure is not None:
            say(f"drew {figure}")


def predict(
    run: RunFolder,
    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE_OR_FOLDER...")],
    /,
    *,
    top: int = 3,
    exit_confidence: float = 1.0,
    figure: Path | None = None,
    batch_size: BatchSize = 32,
    skip_bad: SkipBad = False,
    device: Device = "auto",
    json: Json = False,
    csv: bool = False,
) -> None:
    """Classify image files, or all images of folders, and draw where the model looked.

    Args:
        images: image files and folders.
        top: classes told for each image.
        exit_confidence: stop looking at an image once its class is more probable than this; 1 takes all glimpses.
        figure: draw scanpaths to this file (png, pdf, svg): of six images, spread over their folders.
        csv: CSV on standard output.
    """
    if json and csv:
        raise SettingError("--json or --csv, not both")
    if not images:
        raise SettingError("no images to classify: name files or folders after the run")
    at_least(1, top=top, batch_size=batch_size)
    check_picture(figure)
    with standard_output(json or csv) as output:
        from glimpsenet.data.finding import find_images
        from glimpsenet.data.spread import spread_over_folders
        from glimpsenet.devices import choose_device
        from glimpsenet.inference import ExitRule, Unreadable
        from glimpsenet.inference import predict as classify
        from glimpsenet.inference.files import to_csv
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
                    raise UnreadableImageError(f"{prediction.problem}; remove the file or skip unreadable images")
                skipped.append(prediction.problem)
                continue
            rows.append(prediction.to_dict(top))
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
            print(to_csv(rows), end="", file=output)
        else:
            print_predictions(rows, early_exit=exit_confidence < 1)
        for problem in skipped:
            print(f"skipped: {printable(problem)}", file=sys.stderr)
        if drawn:
            note = f" ({len(drawn)} of {len(rows)} images)" if len(drawn) < len(rows) else ""
            print(f"drew {figure}{note}", file=sys.stderr if json or csv else sys.stdout)


def summary(run: RunFolder, /) -> None:
    """Show a run's model: parts, shapes, parameters, operations after each glimpse."""
    from glimpsenet.evaluation.summary import summary as summarize
    from glimpsenet.runs import load_run

    loaded = load_run(run)
    say(f"{loaded.model!r}\n\n{summarize(loaded.model, loaded.config.model.image_size)}")


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
        say(f"wrote {file}, {file.stat().st_size / 1e6:.1f} MB, which computes the same as {run}")


def print_predictions(rows: list[dict[str, Any]], early_exit: bool) -> None:
    """The answer for each image, and what it was after the first glimpse."""
    table = [[row["file"], row["class"], f"{row['probability']:.2f}", row["glimpses"][0]["class"]] for row in rows]
    columns = ["file", "class", "probability", "after the first glimpse"]
    if early_exit:
        columns.append("glimpses")
        table = [[*cells, str(len(row["glimpses"]))] for cells, row in zip(table, rows, strict=True)]
    print_table(counted(len(rows), "image"), columns, table)
