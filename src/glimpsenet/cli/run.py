"""``glimpsenet evaluate``, ``predict``, ``summary`` and ``export``: a run in use."""

import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from glimpsenet.cli.arguments import FLAT, BatchSize, Device, Json, RunFolder, SkipBad, check_picture, load
from glimpsenet.cli.output import say, standard_output
from glimpsenet.errors import SettingError, printable
from glimpsenet.evaluation.config import EvaluationSettings
from glimpsenet.kinds import at_least


def evaluate(
    run: RunFolder,
    /,
    *,
    policy: Literal["learned", "random", "center", "none", "oracle", "all"] = "learned",
    settings: Annotated[EvaluationSettings, FLAT] = EvaluationSettings(),
    device: Device = "auto",
    figure: Path | None = None,
    json: Json = False,
) -> None:
    """Measure a run on its test images or, where there are none, on its validation images.

    Args:
        policy: learned, random, center, none (the first glimpse only), oracle (the boxes), or all of them.
        figure: draw the confusion matrix to this file (png, pdf, svg).
    """
    check_picture(figure)
    with standard_output(json) as output:
        from glimpsenet.evaluation.run import evaluate_run
        from glimpsenet.evaluation.tables import evaluation_report, judged
        from glimpsenet.inspection.figures import save_confusion

        loaded = load(run, device)
        result = evaluate_run(loaded, policy, settings)
        if figure is not None:
            save_confusion(judged(result)["confusion_matrix"], loaded.classes, figure)
        if json:
            print(json_module.dumps(result), file=output)
        else:
            say(*evaluation_report(result, loaded.classes), *([] if figure is None else [f"drew {figure}"]))


def predict(
    run: RunFolder,
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE_OR_FOLDER...")],
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
        top: classes to report for each image.
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
        from glimpsenet.inference import ExitRule
        from glimpsenet.inference.files import predict_rows, prediction_table, to_csv
        from glimpsenet.inspection.scanpath import draw_files

        loaded, rule = load(run, device), ExitRule(exit_confidence)
        settings: dict[str, Any] = {"batch_size": batch_size, "rule": rule, "skip_bad": skip_bad}
        rows, skipped = predict_rows(loaded, find_images(*images), top=top, **settings)
        drawn = 0 if figure is None else draw_files(loaded, [Path(row["file"]) for row in rows], figure, rule)
        if json:
            print(json_module.dumps({"predictions": rows, "skipped": skipped}), file=output)
        elif csv:
            print(to_csv(rows), end="", file=output)
        else:
            say(prediction_table(rows, early_exit=exit_confidence < 1))
        for problem in skipped:
            print(f"skipped: {printable(problem)}", file=sys.stderr)
        if drawn:
            note = f" ({drawn} of {len(rows)} images)" if drawn < len(rows) else ""
            print(f"drew {figure}{note}", file=sys.stderr if json or csv else sys.stdout)


def summary(run: RunFolder, /) -> None:
    """Show a run's model: parts, shapes, parameters, FLOPs after each glimpse."""
    from glimpsenet.evaluation.summary import summary as summarize

    loaded = load(run)
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
        stepwise: one file a glimpse (NAME.glimpse1.onnx, ...) instead of one for all, to stop early.
        opset: ONNX operator set, 18 to 23; 18 if not given, which TensorRT too computes correctly.
    """
    out = run / f"model.{format}" if out is None else out
    if out.suffix != f".{format}":
        raise SettingError(f"--out {out}: a file of format {format} ends in .{format}")
    from glimpsenet.inference.export import export as write

    for file in write(load(run), out, format, stepwise=stepwise, opset=opset):
        say(f"wrote {file}, {file.stat().st_size / 1e6:.1f} MB, verified against {run}")
