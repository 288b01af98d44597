"""The machine, and the versions of what is installed."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import psutil

from ghost_yolo import __version__

# The CPU flags by which matrix kernels are chosen.
X86 = ["avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_bf16", "amx_fp16", "amx_int8"]  # fmt: skip
ARM = ["asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2"]
GIB = 1024**3
DISTRIBUTIONS = ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "nncf", "ncnn", "pnnx")


def default_threads() -> int:
    """Return the physical cores, or the CPUs that this process may use where they are fewer."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or usable, usable)


@contextmanager
def restore_threads() -> Iterator[None]:
    """Restore torch's number of threads on exit: the host sets its own where it opens or runs a model."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def conditions(device: str, threads: int) -> dict[str, str | int | float]:
    """Return the machine's properties on which times depend."""
    import torch
    from ultralytics.utils.torch_utils import get_cpu_info, get_gpu_info

    found: dict[str, str | int | float] = {
        "cpu": get_cpu_info(),
        "instruction_sets": instruction_sets(),
        "cores": psutil.cpu_count(logical=False) or 0,
        "logical_cpus": os.cpu_count() or 0,
        "threads": threads,
        "memory_gb": round(psutil.virtual_memory().total / 1024**3, 1),
        "system": platform.platform(),
        "load_before": round(psutil.getloadavg()[0], 1),
        "device": device,
    }
    if device != "cpu" and int(device) < torch.cuda.device_count():
        found["gpu"] = get_gpu_info(int(device))
    return found


def instruction_sets() -> str:
    """Return the CPU's instruction sets that matter to kernels, as Linux names them, or PyTorch's name elsewhere."""
    import torch

    info = Path("/proc/cpuinfo")
    flags = set(info.read_text(encoding="utf-8").split()) if info.is_file() else set()
    return " ".join(name for name in X86 + ARM if name in flags) or torch.backends.cpu.get_cpu_capability()


def runtime_versions() -> dict[str, str]:
    """Return the versions of this package, the host, torch and the installed runtimes."""
    found = {name: version(name) for name in DISTRIBUTIONS}
    return versions() | {name: number for name, number in found.items() if number != "not installed"}


def versions() -> dict[str, str]:
    """Return the versions on which the numbers depend."""
    import torch
    import ultralytics

    return {
        "ghost_yolo": __version__,
        "ultralytics": ultralytics.__version__,
        "torch": str(torch.__version__),  # its own class of string is refused by a safe load
        "python": platform.python_version(),
    }


def version(name: str) -> str:
    """Return the installed version of a distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
