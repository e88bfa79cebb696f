"""The command line: thin over the library; everything heavy is imported inside a command."""

import io
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from glimpsenet.cli.bench import BENCH
from glimpsenet.cli.data import DATA
from glimpsenet.cli.demo import demo
from glimpsenet.cli.errors import told_in_one_line
from glimpsenet.cli.inspect import INSPECT
from glimpsenet.cli.output import warnings_in_one_line
from glimpsenet.cli.run import evaluate, export, predict, summary
from glimpsenet.cli.share import import_mgnet, pull, push
from glimpsenet.cli.spelling import Commands, check_spelling
from glimpsenet.cli.train import TRAIN, reproduce
from glimpsenet.data.config import AugmentationConfig
from glimpsenet.data.noise import one_warning

DESCRIPTION = (
    "Image classification by glimpses. `glimpsenet COMMAND --help` explains a command; --debug shows tracebacks."
)
COMMANDS: Commands = {
    "train": TRAIN,
    "evaluate": evaluate,
    "predict": predict,
    "summary": summary,
    "export": export,
    "push": push,
    "pull": pull,
    "reproduce": reproduce,
    "demo": demo,
    "inspect": INSPECT,
    "bench": BENCH,
    "data": DATA,
    "import-mgnet": import_mgnet,
}
GROUPS = {
    "train": "Train a recipe; leaves a run folder with weights, metrics and logs.",
    "inspect": "See where a run looks, and why: windows, gradients, sweeps.",
    "bench": "Measure and compare: localization, speed, scaling, early exit, robustness.",
    "data": "Make data sets: digit scenes, shards, ImageNet100, ImageNet-C.",
}


def build_app(commands: Commands) -> tyro.extras.SubcommandApp:
    """tyro's application of all commands."""
    app = tyro.extras.SubcommandApp()
    for name, command in commands.items():
        if isinstance(command, Mapping):
            app.command(build_app(command), name=name, help=GROUPS[name])
        else:
            app.command(command, name=name)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return app


def augmentation_by_name(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Kinds of augmentation have no settings: the flag takes the kind's name."""
    if not (isinstance(info.type, type) and issubclass(info.type, AugmentationConfig)):
        return None
    names = tuple(AugmentationConfig.kinds)
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(names) + "}",
        instance_from_str=lambda words: AugmentationConfig.kinds[words[0]](),
        is_instance=lambda value: isinstance(value, AugmentationConfig),
        str_from_instance=lambda value: [value.kind],
        choices=names,
    )


def run(arguments: Sequence[str], flags: set[str]) -> None:
    """Parse, and run the command; its flags are added to ``flags``."""
    flags |= check_spelling(arguments, COMMANDS)
    registry = ConstructorRegistry()
    registry.primitive_rule(augmentation_by_name)
    with registry:
        build_app(COMMANDS).cli(
            prog="glimpsenet",
            description=DESCRIPTION,
            args=arguments,
            config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.AvoidSubcommands),
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. Exits with 0 (done), 1 (failed, one line says why) or 2 (wrong usage)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: no file name may end a command
    flags: set[str] = set()
    with told_in_one_line(debug, flags), warnings_in_one_line(), one_warning():
        run(arguments, flags)
