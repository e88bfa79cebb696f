"""What limits the speed of a training step on the CPU: the speed of each convolution of the backbone.

    rate = FLOPs / seconds,  of the forward pass, the gradient of the input, the gradient of the weights

in float32 and bfloat16, channels last, compared with the machine's best measured rate in that precision
(``bench/roofline.py``). Two sums over all convolutions of a step show the possible gain: the speedup that bfloat16
brings now, and the speedup if each convolution ran at the best rate.

Command: ``python benchmarks/convolutions.py``; writes ``benchmarks/results/speed-convolutions.json``
"""

import argparse
import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glimpsenet.bench.roofline import measure_roofline
from glimpsenet.bench.timing import interleaved
from glimpsenet.files import write_json
from glimpsenet.models.backbone import create_backbone_net
from glimpsenet.provenance import provenance
from glimpsenet.tables import print_table

CPU = torch.device("cpu")
SEED = 0
CHANNELS = 3
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PASSES = ("forward", "input gradient", "weight gradient")
Shape = tuple[int, int, int, int, int]
"""Channels in and out, pixels a side of the input, kernel, stride."""


def convolutions_of(backbone: str, pixels: int) -> Counter[Shape]:
    """How often one look computes each of them."""
    found: Counter[Shape] = Counter()

    def remember(module: nn.Conv2d, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        shape = module.in_channels, module.out_channels, inputs[0].shape[-1], module.kernel_size[0], module.stride[0]
        found[shape] += 1

    net = create_backbone_net(backbone)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(remember)
    net(torch.zeros(1, CHANNELS, pixels, pixels))
    return found


def passes(shape: Shape, batch: int, dtype: torch.dtype) -> tuple[dict[str, Callable[[], object]], float]:
    """What to time of a convolution, and the FLOPs of each of the three."""
    channels, width, pixels, kernel, stride = shape
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
    convolution = convolution.to(dtype, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    images = torch.randn(batch, channels, pixels, pixels).to(dtype, memory_format=torch.channels_last)
    with torch.no_grad():
        after = torch.randn_like(convolution(images))

    def gradient(of_input: bool) -> object:
        geometry = [stride, stride], [kernel // 2, kernel // 2], [1, 1], False, [0, 0], 1
        return torch.ops.aten.convolution_backward(
            after, images, convolution.weight, None, *geometry, [of_input, not of_input, False]
        )

    def forward() -> object:
        with torch.no_grad():
            return convolution(images)

    ways = forward, functools.partial(gradient, True), functools.partial(gradient, False)
    calls: dict[str, Callable[[], object]] = dict(zip(PASSES, ways, strict=True))
    return calls, 2.0 * batch * after.shape[-1] ** 2 * channels * width * kernel**2


def measure(backbone: str, pixels: int, glimpses: int, batch: int, repetitions: int) -> dict[str, Any]:
    """All convolutions of a step, the gradient of windows' pixels included."""
    rows: list[dict[str, Any]] = []
    flops, milliseconds = 0.0, dict.fromkeys(PRECISIONS, 0.0)
    for shape, count in convolutions_of(backbone, pixels).items():
        calls: dict[tuple[str, str], Callable[[], object]] = {}
        of_each = 0.0
        for precision, dtype in PRECISIONS.items():
            own, of_each = passes(shape, batch, dtype)
            calls |= {(precision, name): call for name, call in own.items()}
        row: dict[str, Any] = {"shape": shape, "calls": glimpses * count, "gflop": of_each / 1e9}
        for (precision, name), timing in interleaved(calls, CPU, repetitions).items():
            # Nobody asks for the gradient of the first glimpse's pixels.
            times = glimpses * count - (name == "input gradient" and shape[0] == CHANNELS)
            milliseconds[precision] += 1e3 * times * timing.median
            flops += times * of_each / len(PRECISIONS)
            rate = of_each / timing.median / 1e9
            row.setdefault(precision, {})[name] = {"ms": 1e3 * timing.median, "gflops": rate}
        rows.append(row)
    best = {name: measure_roofline(CPU, dtype).flops / 1e9 for name, dtype in PRECISIONS.items()}
    for name in best:
        best[name] = max(best[name], *(way["gflops"] for row in rows for way in row[name].values()))
    least = {name: flops / rate / 1e6 for name, rate in best.items()}
    step = {"gflop": flops / 1e9, "ms": milliseconds, "least_ms": least}
    settings = {"backbone": backbone, "pixels": pixels, "glimpses": glimpses, "batch": batch}
    return {**settings, "convolutions": rows, "best_gflops": best, "step": step}


def main() -> None:
    """Measure, tell and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--pixels", type=int, default=96)
    parser.add_argument("--glimpses", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed-convolutions.json"))
    chosen = parser.parse_args()
    torch.manual_seed(SEED)
    result = measure(chosen.backbone, chosen.pixels, chosen.glimpses, chosen.batch, chosen.repetitions)
    write_json(chosen.out, {**provenance(CPU, [SEED]), **result})
    columns = ["convolution", *(f"{name}, {way}" for name in PRECISIONS for way in PASSES)]
    rows = [
        ["{} to {}, {} px, kernel {}, stride {}".format(*row["shape"])]
        + [f"{row[name][way]['gflops']:.0f}" for name in PRECISIONS for way in PASSES]
        for row in result["convolutions"]
    ]
    print_table("GFLOP/s", columns, rows)
    print(f"best GFLOP/s: {result['best_gflops']}; a step: {result['step']}")


if __name__ == "__main__":
    main()
