"""Split off test from train by whole camera frames, so that signs of one photograph never end up in two splits.

    FOLDER/{train,val}/CLASS/FRAME_*.jpg, boxes.csv   ->   DEST/{train,val,test}/..., links, and boxes.csv

Frames are taken in a fixed random order while their classes need more photos in test; val stays unchanged.

Command: ``python benchmarks/hold_out_frames.py FOLDER DEST [--share 0.17]``
"""

import argparse
import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SEED = 0


def frame_of(name: str) -> str:
    """The camera frame that a photo was cut from."""
    return name.split("_")[0]


def choose_frames(photos: Sequence[tuple[str, str]], share: float) -> set[str]:
    """The frames that make the test split: a frame is taken where all its classes lack a part of their share.

    Args:
        photos: class and name of every photo.
        share: of each class that is wanted in test.
    """
    frames: dict[str, list[str]] = {}
    for category, name in sorted(photos, key=lambda photo: photo[1]):
        frames.setdefault(frame_of(name), []).append(category)
    lacking = {category: share * count for category, count in Counter(c for c, _ in photos).items()}
    names = list(frames)
    chosen: set[str] = set()
    for place in np.random.default_rng(SEED).permutation(len(names)):
        categories = frames[names[place]]
        if all(lacking[category] > 0 for category in categories):
            chosen.add(names[place])
            lacking = {c: left - categories.count(c) for c, left in lacking.items()}
    return chosen


def hold_out(source: Path, destination: Path, share: float) -> dict[str, int]:
    """Link the photos and copy the boxes; returns the number of photos of each split."""
    files = sorted(file for split in ("train", "val") for file in (source / split).glob("*/*.jpg"))
    frames = choose_frames([(file.parts[-2], file.name) for file in files if file.parts[-3] == "train"], share)
    new_names: dict[str, str] = {}
    counts = {"train": 0, "val": 0, "test": 0}
    for file in files:
        split, category, name = file.parts[-3:]
        if split == "train" and frame_of(name) in frames:
            split = "test"
        link = destination / split / category / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())
        new_names[file.relative_to(source).as_posix()] = link.relative_to(destination).as_posix()
        counts[split] += 1
    with open(source / "boxes.csv", newline="") as old, open(destination / "boxes.csv", "w", newline="") as new:
        rows = csv.DictReader(old)
        writer = csv.DictWriter(new, rows.fieldnames or ())
        writer.writeheader()
        writer.writerows({**row, "file": new_names[row["file"]]} for row in rows)
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--share", type=float, default=0.17, help="of every class's training photos, at least")
    chosen = parser.parse_args()
    print(hold_out(chosen.source, chosen.destination, chosen.share))
