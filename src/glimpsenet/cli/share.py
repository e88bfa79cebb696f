"""``glimpsenet push``, ``pull`` and ``import-mgnet``: models to and from elsewhere."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from glimpsenet.cli.arguments import FLAT, RunFolder, load
from glimpsenet.cli.output import say
from glimpsenet.models.config import MGNetConfig

Repository = Annotated[Positional[str], arg(metavar="USER/NAME", help="repository on the Hugging Face Hub.")]


def push(run: RunFolder, repo_id: Repository, /, *, private: bool = False) -> None:
    """Share a run on the Hugging Face Hub, with a model card made from what was measured.

    Args:
        run: run folder; a README.md in it goes before a new model card.
        private: make a new repository one that only you see.
    """
    say(f"pushed {run} to {load(run).push_to_hub(repo_id, private=private or None)}")


def pull(
    repo_id: Repository,
    run: Annotated[Positional[Path | None], arg(metavar="RUN")] = None,
    /,
    *,
    revision: str | None = None,
) -> None:
    """Make a run folder of a shared model; runs no code of it.

    Args:
        run: a new run folder; runs/NAME if not given.
        revision: branch, tag or commit; the newest if not given.
    """
    from glimpsenet.runs.run import pull as make_folder

    say(f"pulled {repo_id} to {make_folder(repo_id, run, revision=revision)}")


def import_mgnet(
    checkpoint: Annotated[Positional[Path], arg(metavar="CKPT")],
    run: RunFolder,
    /,
    *,
    settings: Annotated[MGNetConfig, FLAT] = MGNetConfig(),
    data: Path | None = None,
) -> None:
    """Turn a checkpoint of MGNet into a run folder; runs no code of the file.

    Args:
        checkpoint: MGNet's Lightning checkpoint, or a plain state dict.
        run: a new run folder.
        data: a folder with val/CLASS, to name the classes by; they are numbered otherwise.
    """
    from glimpsenet.runs.mgnet import import_mgnet as make_folder

    if ignored := make_folder(checkpoint, run, settings, data=data):
        say(f"ignored {len(ignored)} keys that are not the model's: {', '.join(ignored[:5])}")
    say(f"imported {checkpoint} to {run}")
