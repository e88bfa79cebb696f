"""Peak memory of a call: the most bytes of tensors that it holds at once, beyond those held before.

On a GPU, torch's allocator keeps count. On a CPU, the profiler records the allocations of torch's allocator, and the
peak of their running sum counts: it is the same on every machine and independent of the operating system's reserves.
Workspace that libraries allocate themselves is not included.
"""

import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from glimpsenet.bench.timing import synchronize

MEASURED = "measured"


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The peak of one call; call it once before, so that lasting allocations (compiled code, momenta) exist."""
    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()  # warm-up: it may free memory allocated before profiling; the next call only frees its own
        with record_function(MEASURED):
            call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    start = next(event["ts"] for event in events if event.get("name") == MEASURED)
    changes = [(e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]" and e["ts"] >= start]
    changes.sort(key=lambda change: change[0])
    return max((0, *itertools.accumulate(change for _, change in changes)))
