"""The loss of an ImageNet backbone over windows on a photo: how linear its gradient is, how wide its basins are.

    R^2           share of the gradient's variance along a sweep that the line of best fit explains (``sweep.py``)
    basin         pixels around the lowest point over which the loss, averaged over a tenth of the sweep, stays below
                  halfway to its highest; the sweep's end may cut it; none if the loss varies by less than ``DEPTH``

A backbone, with its own head as auxiliary classifier, classifies a single window. The window starts in the middle of
the photo, at several scales; s, tx and ty are swept in turn. The report's subjects are a goldfish (class 1 of ImageNet)
and a lorikeet (class 90).

Command: ``python benchmarks/photo_gradients.py --backbone-weights FILE goldfish.jpg=1 lorikeet.jpg=90``; writes
``benchmarks/results/photo-gradients.json``, which names the photos but does not contain them
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

import glimpsenet
from glimpsenet.data.config import ImageNetAugmentation
from glimpsenet.data.images import read_image
from glimpsenet.files import write_json
from glimpsenet.inspection.gradients import auxiliary_loss, observe
from glimpsenet.inspection.sweep import PARAMETERS, Sweep, sweep
from glimpsenet.models.backbone import read_tensors
from glimpsenet.models.config import MipmapConfig
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.provenance import provenance

RESULT = Path("benchmarks/results/photo-gradients.json")
IMAGE_SIZE = 224
SCALES = (0.2, 0.3, 0.4, 0.6)
SCALE_RANGE = (0.15, 0.99)
SMOOTHING = 0.1
DEPTH = 1.0
"""Nats; a photo that is recognised everywhere has a loss without basins."""


def basin(loss: Float[np.ndarray, "point"], length: float) -> tuple[float, bool]:
    """How much of a sweep of ``length`` lies around its lowest point below half height, and whether an end cuts it."""
    reach = max(1, round(SMOOTHING / 2 * (len(loss) - 1)))
    smooth = np.convolve(loss, np.full(2 * reach + 1, 1 / (2 * reach + 1)), mode="valid")
    lowest = int(smooth.argmin())
    above = np.flatnonzero(smooth > (smooth.min() + smooth.max()) / 2)
    left, right = above[above < lowest].max(initial=-1), above[above > lowest].min(initial=len(smooth))
    return float(right - left - 1) * length / (len(loss) - 1), bool(left < 0 or right == len(smooth))


def with_own_head(backbone: str, weights: Path) -> GlimpseNet:
    """A model whose auxiliary classifier is the backbone's own ImageNet head."""
    settings: dict[str, Any] = {"image_size": IMAGE_SIZE, "sampling": MipmapConfig()}
    model = glimpsenet.create_model(backbone, num_classes=1000, backbone_weights=weights, **settings)
    assert model.auxiliary_classifier is not None
    head = {key.rpartition(".")[2]: value for key, value in read_tensors(weights).items() if "classifier" in key}
    model.auxiliary_classifier.load_state_dict(head)
    return model


def measure(model: GlimpseNet, photo: Path, label: int, points: int) -> list[dict[str, Any]]:
    """A row a scale and parameter."""
    image = ImageNetAugmentation().evaluation_transform(IMAGE_SIZE)(read_image(photo))
    rows = []
    for scale in SCALES:
        policy = glimpsenet.FixedGlimpses({2: (scale, 0.0, 0.0)}, otherwise=model.policy)
        scene = observe(model, image, label, policy=policy)
        for parameter in PARAMETERS:
            if parameter == "s" and scale != SCALES[0]:
                continue  # a sweep of s is the same from every scale
            swept = sweep(scene, parameter, points=points, scale_range=SCALE_RANGE, loss=auxiliary_loss)
            rows.append(_row(photo, label, scale, swept))
    return rows


def _row(photo: Path, label: int, scale: float, swept: Sweep) -> dict[str, Any]:
    loss = swept.loss.double().numpy()
    place, deep = swept.parameter != "s", float(loss.max() - loss.min()) >= DEPTH
    width, cut = basin(loss, float(swept.values[-1] - swept.values[0]) * IMAGE_SIZE / 2)
    return {
        "photo": photo.name,
        "class": label,
        "parameter": swept.parameter,
        "scale": scale if place else None,
        "r_squared": swept.r_squared,
        "wanted_sign": swept.has_wanted_sign,
        "loss": {"lowest": float(loss.min()), "highest": float(loss.max())},
        **({"basin_px": width, "cut_by_an_end": cut} if place and deep else {}),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", metavar="PHOTO=CLASS", help="file and number of its ImageNet class")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--backbone-weights", type=Path, required=True, help="with the ImageNet head")
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args(arguments)
    model = with_own_head(chosen.backbone, chosen.backbone_weights)
    rows = []
    for text in chosen.photos:
        file, _, label = text.rpartition("=")
        rows += measure(model, Path(file), int(label), chosen.points)
    values = {**provenance(torch.device("cpu"), []), "points": chosen.points, "sweeps": rows}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out, values)
    for row in rows:
        print("{photo}: {parameter} at s = {scale}: R^2 {r_squared:.3f}".format(**row))
    print(f"wrote {chosen.out}")


if __name__ == "__main__":
    main()
