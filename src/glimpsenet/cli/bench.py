"""``glimpsenet bench``: measure and compare."""

import os
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from glimpsenet.bench.config import EarlyExitSettings, LocalizationTask, ScalingSettings, SpeedSettings, SubjectSettings
from glimpsenet.cli.arguments import FLAT, Device, JsonFile, Records, RunFolder, RunFolders, load, load_all
from glimpsenet.cli.output import say
from glimpsenet.kinds import at_least
from glimpsenet.robustness.config import Protocol

Target = Annotated[Positional[str], arg(metavar="RUN_OR_BACKBONE", help="run folder, or a timm model, untrained.")]
Plain = Annotated[tuple[Path, ...], arg(help="runs with one glimpse of the whole image, to compare with.")]


def localization(
    *,
    methods: tuple[str, ...] = (),
    task: Annotated[LocalizationTask, FLAT] = LocalizationTask(),
    seeds: int = 1,
    out: Path = Path("runs/bench-localization"),
    records: Records = None,
    device: Device = "auto",
) -> None:
    """Train ways of learning where to look side by side, and compare them; continues where it stopped.

    Args:
        methods: names of methods; all if none is given; mgnet, pathwise-mipmap and oracle are always among them.
        task: what all methods share.
        seeds: how often to train each method.
        out: folder of the runs, of localization.json and localization.png.
    """
    at_least(1, seeds=seeds)
    from glimpsenet.bench import tables
    from glimpsenet.bench.localization import METHODS, bench_localization
    from glimpsenet.provenance import typed_command

    settings = {"seeds": seeds, "records": records, "device": device, "command": typed_command(), "tell": say}
    values = bench_localization(task.config, methods or tuple(METHODS), out, **settings)
    say(tables.method_table(values["methods"]))
    say(f"wrote {out / 'localization.json'} and {out / 'localization.png'}")


def speed(
    target: Target = "resnet18",
    /,
    *,
    sizes: Annotated[SubjectSettings, FLAT] = SubjectSettings(),
    settings: Annotated[SpeedSettings, FLAT] = SpeedSettings(),
    device: Device = "auto",
    out: JsonFile = Path("speed.json"),
) -> None:
    """Time a model that glimpses beside its plain backbone in the same mode, with peak memory."""
    quiet_profiler()
    from glimpsenet.bench import tables
    from glimpsenet.bench.speed import bench_speed
    from glimpsenet.bench.subjects import open_subject
    from glimpsenet.devices import choose_device
    from glimpsenet.provenance import write_measurement

    subject = open_subject(target, choose_device(device), sizes)
    result = bench_speed(subject, settings, tell=say)
    say(*tables.speed_tables(target, result))
    say(write_measurement(out, subject.device, [subject.config.seed], result))


def scaling(
    target: Target = "resnet18",
    /,
    *,
    settings: Annotated[ScalingSettings, FLAT] = ScalingSettings(),
    device: Device = "auto",
    out: JsonFile = Path("scaling.json"),
) -> None:
    """Time, FLOPs and peak memory as glimpses or image and batch grow, beside the plain backbone."""
    quiet_profiler()
    from glimpsenet.bench import tables
    from glimpsenet.bench.scaling import bench_scaling
    from glimpsenet.bench.subjects import open_subject
    from glimpsenet.devices import choose_device
    from glimpsenet.provenance import write_measurement

    subject = open_subject(target, choose_device(device))
    result = bench_scaling(subject, settings)
    say(tables.scaling_table(f"{target}: a batch, {settings.mode}", result), *tables.break_even_lines(result))
    say(write_measurement(out, subject.device, [subject.config.seed], result))


def early_exit(
    runs: RunFolders,
    /,
    *,
    plain: Plain = (),
    settings: Annotated[EarlyExitSettings, FLAT] = EarlyExitSettings(),
    device: Device = "auto",
    out: JsonFile = Path("early-exit.json"),
) -> None:
    """Calibrate early exit on val and measure it on test, or on halves of val where there is no test split.

    Args:
        runs: run folders that differ in their seed only.
        out: JSON file to write, and a picture beside it.
    """
    from glimpsenet.bench import tables
    from glimpsenet.bench.early_exit import bench_early_exit, plot_early_exit
    from glimpsenet.inspection.figures import save_figure
    from glimpsenet.provenance import write_measurement

    opened = load_all(runs, device)
    result = bench_early_exit(opened, settings, plain=[load(other, device) for other in plain], tell=say)
    say(tables.early_exit_table(result))
    save_figure(plot_early_exit(result), out.with_suffix(".png"))
    say(write_measurement(out, opened[0].device, (run.config.seed for run in opened), result))


def robustness(
    run: RunFolder,
    /,
    *,
    plain: Plain = (),
    data: Path | None = None,
    protocol: Annotated[Protocol, FLAT] = Protocol(),
    imagenet_c: Path | None = None,
    device: Device = "auto",
    out: JsonFile = Path("robustness.json"),
) -> None:
    """Attack a run and corrupt its images, beside plain backbones; with checks for masked gradients.

    Args:
        data: another folder with val/CLASS/*.jpg.
        imagenet_c: folder CORRUPTION/SEVERITY/CLASS of ready images, instead of those made of the run's own.
        out: JSON file to write, and a picture beside it.
    """
    from glimpsenet.inspection.figures import save_figure
    from glimpsenet.provenance import write_measurement
    from glimpsenet.robustness.bench import bench_robustness
    from glimpsenet.robustness.figures import plot_robustness
    from glimpsenet.robustness.tables import robustness_lines, robustness_tables

    one, *others = load_all((run, *plain), device)
    result = bench_robustness(one, plain=others, data=data, protocol=protocol, imagenet_c=imagenet_c, tell=say)
    say(*robustness_tables(result), *robustness_lines(result))
    save_figure(plot_robustness(result), out.with_suffix(".png"))
    say(write_measurement(out, one.device, (protocol.seed, *(each.config.seed for each in (one, *others))), result))


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
