"""Where the noise of dL/dtx comes from: the share of its variance at wavelengths close to the pixel grid.

    share = power of dL/dtx at wavelengths below ``WAVELENGTH`` image pixels / its total power

from a periodogram with a Hann window, after removing the mean.

A window slides over the digit in steps of 1/``PER_PIXEL`` pixel, at several scales, with the other windows at the true
location. The content of a window changes over the width of a digit, 16 pixels; changes within two pixels come from the
alignment of image and glimpse pixels.

Command: ``python benchmarks/gradient_spectrum.py RUN... [--scenes 50]`` with runs that use their windows (see
``gradient_quality.py``); writes ``benchmarks/results/gradient-spectrum.json``
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.signal import periodogram
from torch import Tensor

from glimpsenet.data.sample import Sample
from glimpsenet.files import write_json
from glimpsenet.geometry import box_to_window
from glimpsenet.inspection.gradients import observe, probe
from glimpsenet.intervals import bootstrap_interval
from glimpsenet.policies.baselines import OracleGlimpses
from glimpsenet.provenance import portable, provenance
from glimpsenet.runs import Run
from gradient_quality import held_out_scenes, open_reader

RESULT = Path("benchmarks/results/gradient-spectrum.json")
POINTS, PER_PIXEL = 256, 16
SCALES = (0.2, 0.3, 0.4)
WAVELENGTH = 2.0
"""Pixels of the image."""
STEP = 2


def fine_share(gradient: Float[np.ndarray, "point"]) -> float:
    """Share of the variance at wavelengths below ``WAVELENGTH``, of ``PER_PIXEL`` points a pixel; 0 without any."""
    frequencies, power = periodogram(gradient, fs=PER_PIXEL, window="hann", detrend="constant")
    total = float(power.sum())
    return float(power[frequencies > 1 / WAVELENGTH].sum()) / total if total > 0 else 0.0


def slide(box: Float[Tensor, "4"], scale: float, image_size: int) -> Float[Tensor, "point 3"]:
    """Windows side by side over the middle of ``box``, all inside the image."""
    _, x, y = box_to_window(box, image_size).tolist()
    offsets = (torch.arange(POINTS) - (POINTS - 1) / 2) * (2 / (PER_PIXEL * image_size))
    room = 1 - scale
    half = float(offsets[-1])
    middle = min(max(x, half - room), room - half)
    windows = torch.full((POINTS, 3), scale)
    windows[:, 1], windows[:, 2] = middle + offsets, min(max(y, -room), room)
    return windows


def measure(run: Run, samples: Sequence[Sample]) -> dict[float, list[float]]:
    """Scale -> the share in each image."""
    model, size = run.model, run.config.model.image_size
    shares: dict[float, list[float]] = {scale: [] for scale in SCALES}
    for sample in samples:
        assert sample.image is not None
        policy = OracleGlimpses(run.config.model.scale_range, sample.box[None])
        scene = observe(model, sample.image, sample.label, policy=policy)
        for scale, values in shares.items():
            _, gradient = probe(scene, STEP, slide(sample.box, scale, size))
            values.append(fine_share(gradient[:, 1].double().cpu().numpy()))
    return shares


def summarize(groups: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The mean over images, with its 95% interval (bootstrap of the images within each model), and of each model."""
    arrays = [np.array(group) for group in groups]
    low, high = bootstrap_interval(arrays, np.random.default_rng(0))
    return {
        "mean": float(np.concatenate(arrays).mean()),
        "low": low,
        "high": high,
        "models": [float(group.mean()) for group in arrays],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--scenes", type=int, default=50, help="of each model")
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args(arguments)
    shares, models = [], []
    for place, (run, accuracy) in enumerate([open_reader(folder) for folder in chosen.runs]):
        split, samples = held_out_scenes(run, place * chosen.scenes, chosen.scenes)
        shares.append(measure(run, samples))
        models.append({"run": portable(str(run.folder)), "seed": run.config.seed, "accuracy": accuracy, "split": split})
        print(f"measured {run.folder}", flush=True)
    values = {
        **provenance(torch.device("cpu"), [model["seed"] for model in models]),
        "models": models,
        "scenes": chosen.scenes,
        "points": POINTS,
        "points_per_pixel": PER_PIXEL,
        "wavelength": WAVELENGTH,
        "share": [{"scale": scale, **summarize([one[scale] for one in shares])} for scale in SCALES],
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out, values)
    for row in values["share"]:
        print("s = {scale}: {mean:.2f} ({low:.2f} to {high:.2f}) below {0:g} px".format(WAVELENGTH, **row))
    print(f"wrote {chosen.out}")


if __name__ == "__main__":
    main()
