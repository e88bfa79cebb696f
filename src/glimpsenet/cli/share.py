"""``glimpsenet push``, ``pull`` and ``import-mgnet``: models to and from elsewhere."""

from pathlib import Path
from typing import Annotated

import tyro

from glimpsenet.cli.arguments import RunFolder
from glimpsenet.cli.output import say
from glimpsenet.errors import SettingError, UserError


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
    require_repository(repo_id)
    from glimpsenet.runs import load_run

    say(f"pushed {run} to {load_run(run).push_to_hub(repo_id, private=private or None)}")


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
    require_repository(repo_id)
    run = Path("runs") / repo_id.split("/")[1] if run is None else run
    if run.exists():
        raise UserError(f"{run} is there already; name another folder: glimpsenet pull {repo_id} RUN")
    from glimpsenet.runs import Run

    aside = run.with_name(f".{run.name}.part")
    Run.from_pretrained(repo_id, revision=revision).save_pretrained(aside)
    aside.rename(run)
    say(f"pulled {repo_id} to {run}")


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
        num_glimpses: T, the first glimpse included.
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
        say(f"ignored {len(ignored)} keys that are not the model's: {', '.join(ignored[:5])}")
    say(f"imported {checkpoint} to {run}")


def require_repository(repo_id: str) -> None:
    """Refuse what is no USER/NAME.

    Raises:
        SettingError: naming it.
    """
    user, _, name = repo_id.partition("/")
    if not user or not name or "/" in name:
        raise SettingError(f"a model on the Hub is called USER/NAME, not {repo_id!r}")
