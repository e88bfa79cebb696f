"""The picture at the top of README: a street photo of test with the windows of a model trained on labels only.

It is the first photo, in the seeded order of test, that the first glimpse gets wrong and the last right, with the sign
inside a window: an example of what glimpses are for, not of how often they succeed (README's table says that).

Command: ``python benchmarks/readme_picture.py RUN`` with a run of ``benchmarks/whole_image.py``; leaves
``docs/images/street.png``
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from glimpsenet import geometry
from glimpsenet.data.folder import PhotoDataset
from glimpsenet.data.loading import open_data
from glimpsenet.data.spread import spread_over_classes
from glimpsenet.errors import UserError
from glimpsenet.inference import Prediction, predict
from glimpsenet.inspection.scanpath import gather
from glimpsenet.runs import Run, load_run

PICTURE = Path("docs/images/street.png")


def tells(run: Run, prediction: Prediction, label: int, box: torch.Tensor) -> bool:
    """Whether the first glimpse is wrong, the last right, and the sign inside one of the windows."""
    answers = prediction.probabilities.argmax(-1)
    size = run.config.model.image_size
    covered = geometry.covered_share(prediction.windows[1:], box[None], size) >= geometry.HIT_SHARE
    return int(answers[0]) != label and int(answers[-1]) == label and bool(covered.any())


def main(arguments: Sequence[str] | None = None) -> None:
    """Find the photo and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = load_run(parser.parse_args(arguments).run)
    split, photos = open_data(run.config, run.classes, run.channels).held_out()
    if not isinstance(photos, PhotoDataset):
        raise UserError(f"{run.folder} was not trained on photos")
    order = spread_over_classes(photos.labels, len(photos), run.config.seed)
    for place in order:
        sample = photos[0, place]
        for prediction in predict(run, photos.files[place]):
            if isinstance(prediction, Prediction) and tells(run, prediction, sample.label, sample.box):
                gather([prediction]).save(PICTURE)
                print(f"drew {PICTURE}: {photos.files[place].name} of {split}")
                return
    raise UserError("no photo is read wrong at the first glimpse and right at the last")


if __name__ == "__main__":
    main()
