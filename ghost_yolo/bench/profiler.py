"""Where the time of a forward pass goes, by operator kind, as each runtime's own profiler says."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from ghost_yolo.bench.runtimes import Setup, open_onnx, open_openvino, open_pytorch
from ghost_yolo.errors import UserError


def operators(runtime: str, file: Path, setup: Setup, passes: int) -> dict[str, float]:
    """Return the milliseconds of a forward pass by operator kind, the longest first.

    Raises:
        UserError: If the runtime has no profiler here.
    """
    if runtime not in PROFILERS:
        raise UserError(f"{runtime} has no profiler in Python; profiled are {', '.join(PROFILERS)}")
    kinds = PROFILERS[runtime](file, setup, passes)
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))


def of_pytorch(file: Path, setup: Setup, passes: int) -> dict[str, float]:
    """Return the time of PyTorch's own operators, without those that they call; a GPU's where it runs on one."""
    from torch.profiler import ProfilerActivity, profile

    run = open_pytorch(file, setup)
    run()
    on_gpu = setup.device != "cpu"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        for _ in range(passes):
            run()
    name = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    times = {event.key: getattr(event, name) / passes / 1e3 for event in profiler.key_averages()}
    return {kind: ms for kind, ms in times.items() if ms > 0}


def of_onnx(file: Path, setup: Setup, passes: int) -> dict[str, float]:
    """Return the median time of each node in ONNX Runtime's profile, summed by operator type."""
    with tempfile.TemporaryDirectory() as folder:
        run = open_onnx(file, setup, enable_profiling=True, profile_file_prefix=str(Path(folder) / "profile"))
        for _ in range(1 + passes):
            run()
        events = json.loads(Path(run.session.end_profiling()).read_text(encoding="utf-8"))  # type: ignore[attr-defined]
    return by_kind(
        (event["name"], event["args"]["op_name"], event["dur"] / 1e3)
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    )


def of_openvino(file: Path, setup: Setup, passes: int) -> dict[str, float]:
    """Return the median time of each node in OpenVINO's counters, summed by node type."""
    run = open_openvino(file, setup, PERF_COUNT=True)
    run()
    nodes = []
    for _ in range(passes):
        run()
        counted = run.session.profiling_info  # type: ignore[attr-defined]
        nodes += [(node.node_name, node.node_type, node.real_time.total_seconds() * 1e3) for node in counted]
    return by_kind(nodes)


def by_kind(nodes: Iterable[tuple[str, str, float]]) -> dict[str, float]:
    """Return the sum over nodes of a kind of each node's median milliseconds.

    Args:
        nodes: Name, kind and milliseconds of a node in one pass.
    """
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for name, kind, ms in nodes:
        times[name, kind].append(ms)
    sums: dict[str, float] = defaultdict(float)
    for (_, kind), all_ms in times.items():
        sums[kind] += median(all_ms)
    return {kind: ms for kind, ms in sums.items() if ms > 0}


PROFILERS = {"pytorch": of_pytorch, "onnx": of_onnx, "openvino": of_openvino}
