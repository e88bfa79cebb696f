"""Peak memory of a call: the most bytes of tensors that it holds at once, beyond those that were there before.

On a GPU torch's allocator keeps count. On a CPU the profiler notes every allocation of torch's allocator, and the peak
of their running sum is told: the same on every machine, and free of what the operating system keeps in store. Work
space that libraries allocate for themselves is not in it.
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
    """The peak of one call; call it once before, so that what stays (compiled code, momenta) already exists."""
    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()  # what this one frees was there before the profiler; of the next, every end has its beginning
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
