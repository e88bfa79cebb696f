"""The least time a computation can take on a machine: the roofline (Williams, Waterman & Patterson 2009).

    least seconds = max(FLOPs / (FLOPs per second), bytes / (bytes per second))

Both rates are measured on the machine, in the computation's precision: with one large matrix product or convolution,
whichever is faster (libraries tune them separately), and by reading more memory than any cache holds. The bytes are
those of the weights, once per glimpse, since each glimpse waits for the previous one.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from glimpsenet.bench.timing import clock

SIDE = {"cpu": 2048, "cuda": 8192}
"""Side of the matrices; large enough for the device's best rate."""
BATCH = {"cpu": 16, "cuda": 512}
CHANNELS, PIXELS, KERNEL = 256, 28, 3
"""Size of the convolution: typical of ResNet-like backbones."""
BYTES = 2**28
TRIALS = 5


@dataclass(frozen=True)
class Roofline:
    """The peak rates of a machine."""

    flops: float
    """FLOPs per second, 2 per multiply-add."""
    bytes: float
    """Bytes read per second."""

    def least_seconds(self, flops: float, bytes: float = 0) -> float:
        """See the module's docstring."""
        return max(flops / self.flops, bytes / self.bytes)


def measure_roofline(device: torch.device, dtype: torch.dtype) -> Roofline:
    """The best of several trials."""
    side, batch = SIDE.get(device.type, SIDE["cpu"]), BATCH.get(device.type, BATCH["cpu"])
    matrix = torch.rand(side, side, device=device).to(dtype)
    images, kernels = (
        torch.rand(*shape, device=device).to(dtype, memory_format=torch.channels_last)
        for shape in ((batch, CHANNELS, PIXELS, PIXELS), (CHANNELS, CHANNELS, KERNEL, KERNEL))
    )
    memory = torch.zeros(BYTES // 4, device=device)
    multiply = min(clock(lambda: matrix @ matrix, device) for _ in range(TRIALS))
    with torch.inference_mode():
        convolve = min(clock(lambda: F.conv2d(images, kernels, padding="same"), device) for _ in range(TRIALS))
    read = min(clock(memory.max, device) for _ in range(TRIALS))
    of_convolution = 2 * batch * PIXELS**2 * CHANNELS**2 * KERNEL**2
    return Roofline(flops=max(2 * side**3 / multiply, of_convolution / convolve), bytes=BYTES / read)
