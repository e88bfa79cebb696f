"""The least time that a computation can take on a machine: the roofline (Williams, Waterman & Patterson 2009).

    least seconds = max(operations / (operations a second), bytes / (bytes a second))

Both rates are measured where the computation runs, in its precision: of one large matrix product, and of reading more
memory than any cache holds. The bytes are those of the weights, once a look, since a look waits for the one before.
"""

from dataclasses import dataclass

import torch

from glimpsenet.bench.timing import clock

SIDE = {"cpu": 2048, "cuda": 8192}
"""Of the matrices; large enough for the device's best rate."""
BYTES = 2**28
TRIALS = 5


@dataclass(frozen=True)
class Roofline:
    """What a machine can do."""

    operations: float
    """A second; a multiplication and an addition are two."""
    bytes: float
    """Read a second."""

    def least_seconds(self, operations: float, bytes: float = 0) -> float:
        """See the module."""
        return max(operations / self.operations, bytes / self.bytes)


def measure_roofline(device: torch.device, dtype: torch.dtype) -> Roofline:
    """The best of a few trials."""
    side = SIDE.get(device.type, SIDE["cpu"])
    matrix = torch.rand(side, side, device=device).to(dtype)
    memory = torch.zeros(BYTES // 4, device=device)
    multiply = min(clock(lambda: matrix @ matrix, device) for _ in range(TRIALS))
    read = min(clock(memory.max, device) for _ in range(TRIALS))
    return Roofline(operations=2 * side**3 / multiply, bytes=BYTES / read)
