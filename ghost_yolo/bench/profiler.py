"""Time of a forward pass by operator type, from each runtime's own profiler."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from ghost_yolo.bench.runtimes import InferenceConfig, open_onnx, open_openvino, open_pytorch
from ghost_yolo.errors import UserError
from ghost_yolo.utils.files import temporary_folder


def profile_operators(runtime: str, file: Path, config: InferenceConfig, passes: int) -> dict[str, float]:
    """Return the milliseconds of a forward pass by operator type, the longest first.

    Raises:
        UserError: If the runtime has no profiler here.
    """
    if runtime not in PROFILERS:
        raise UserError(f"{runtime} has no profiler in Python; {', '.join(PROFILERS)} have one")
    times = PROFILERS[runtime](file, config, passes)
    return dict(sorted(times.items(), key=lambda item: -item[1]))


def profile_pytorch(file: Path, config: InferenceConfig, passes: int) -> dict[str, float]:
    """Return the self time of PyTorch's operators, on the device where the model runs."""
    from torch.profiler import ProfilerActivity, profile

    run = open_pytorch(file, config)
    run()
    on_gpu = config.device != "cpu"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        for _ in range(passes):
            run()
    name = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    times = {event.key: getattr(event, name) / passes / 1e3 for event in profiler.key_averages()}
    return {name: ms for name, ms in times.items() if ms > 0}


def profile_onnx(file: Path, config: InferenceConfig, passes: int) -> dict[str, float]:
    """Return the median time of each node in ONNX Runtime's profile, summed by operator type."""
    with temporary_folder("ghost-yolo-profile-") as folder:
        run = open_onnx(file, config, enable_profiling=True, profile_file_prefix=str(folder / "profile"))
        for _ in range(1 + passes):
            run()
        events = json.loads(Path(run.session.end_profiling()).read_text(encoding="utf-8"))
    return sum_by_operator(
        (event["name"], event["args"]["op_name"], event["dur"] / 1e3)
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    )


def profile_openvino(file: Path, config: InferenceConfig, passes: int) -> dict[str, float]:
    """Return the median time of each node in OpenVINO's counters, summed by node type."""
    run = open_openvino(file, config, PERF_COUNT=True)
    run()
    nodes = []
    for _ in range(passes):
        run()
        counted = run.session.profiling_info
        nodes += [(node.node_name, node.node_type, node.real_time.total_seconds() * 1e3) for node in counted]
    return sum_by_operator(nodes)


def sum_by_operator(nodes: Iterable[tuple[str, str, float]]) -> dict[str, float]:
    """Return each operator type's sum of its nodes' median milliseconds.

    Args:
        nodes: Name, operator type and milliseconds of a node in one pass.
    """
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for name, operator, ms in nodes:
        times[name, operator].append(ms)
    sums: dict[str, float] = defaultdict(float)
    for (_, operator), passes in times.items():
        sums[operator] += median(passes)
    return {operator: ms for operator, ms in sums.items() if ms > 0}


PROFILERS = {"pytorch": profile_pytorch, "onnx": profile_onnx, "openvino": profile_openvino}
