"""Make the digit model shipped with the package, which ``glimpsenet demo`` shows by default.

    RUN/{config.json, weights} -> src/glimpsenet/demo/digits/{config.json, model.safetensors}, under 1 MB

Command: ``python benchmarks/ship_demo_model.py RUN`` with a run of a recipe on digit scenes.
"""

import argparse
from pathlib import Path

from glimpsenet.data.config import DigitsConfig
from glimpsenet.demo.exhibit import SHIPPED
from glimpsenet.errors import UserError
from glimpsenet.runs import CONFIG, WEIGHTS, load_run, save_weights, write_description

MAX_BYTES = 1_000_000


def ship(folder: Path, destination: Path) -> None:
    """Copy what describes a run and its weights.

    Raises:
        UserError: for a run that is not on digit scenes, or is too large to ship.
    """
    run = load_run(folder)
    if not isinstance(run.config.data, DigitsConfig):
        raise UserError(f"{folder} is no run on digit scenes: the demo could not draw examples for it")
    if (size := sum(4 * p.numel() for p in run.model.parameters())) > MAX_BYTES:
        raise UserError(f"{folder} has {size / 1e6:.1f} MB of weights; at most {MAX_BYTES / 1e6:.0f} MB are shipped")
    destination.mkdir(parents=True, exist_ok=True)
    write_description(destination, run)
    save_weights(run.model, destination)
    for name in (CONFIG, WEIGHTS):
        (destination / name).chmod(0o644)  # safetensors writes for its owner only


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    ship(parser.parse_args().run, SHIPPED)
    print(f"shipped to {SHIPPED}")
