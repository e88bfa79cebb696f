"""Names of devices, and what they compute in."""

import platform
from collections.abc import Mapping
from typing import Any

import torch

from glimpsenet.errors import UserError


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` (the first accelerator, else the CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``...

    Raises:
        UserError: if there is no such device here.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"unknown device '{name}'; known are auto, cpu, cuda, cuda:1, mps") from error
    here = accelerator is not None and device.type == accelerator.type
    if device.type != "cpu" and not (here and (device.index or 0) < torch.accelerator.device_count()):
        raise UserError(f"no device '{name}' on this machine; 'cpu' and 'auto' always work")
    return device


def cpu_name() -> str:
    """What the processor is called, as far as this version of torch knows."""
    return str(_cpu_capabilities().get("cpu_name") or platform.processor() or platform.machine())


def _cpu_capabilities() -> Mapping[str, Any]:
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself; where it is emulated, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = _cpu_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False
