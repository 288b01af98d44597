"""The runtimes that `ghost-yolo bench` can time, one row each in RUNTIMES. A runtime is imported when a file is opened."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ghost_yolo.errors import UserError

Precision = Literal["fp32", "fp16", "int8", "default"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
DEFAULT: Precision = (
    "default"  # a float32 file in the precision that the runtime chooses for the CPU; only OpenVINO has a choice
)
MB = 1024 * 1024


@dataclass(frozen=True)
class InferenceConfig:
    """How a file is run.

    Attributes:
        batch: Images in one forward pass.
        imgsz: Image side in pixels, or height and width.
        channels: Channels of an image.
        precision: fp32, fp16 or int8.
        device: `cpu`, or the number of a GPU.
        threads: CPU threads.
    """

    batch: int
    imgsz: int | tuple[int, int]
    channels: int
    precision: str
    device: str
    threads: int

    def image(self) -> NDArray[np.float32]:
        """Return seeded noise (b, c, h, w) in 0..1."""
        sides = (self.imgsz, self.imgsz) if isinstance(self.imgsz, int) else self.imgsz
        shape = (self.batch, self.channels, *sides)
        return np.random.RandomState(0).rand(*shape).astype(np.float32)


@dataclass(frozen=True)
class LoadedModel:
    """A model in a runtime: calling it runs one forward pass, waits for its end and returns the outputs.

    Attributes:
        run: The forward pass.
        image: The input, an array or tensor; each forward pass reads it anew.
        session: The runtime's own object, which its profiler reads; None for runtimes without one.
    """

    run: Callable[[], object]
    image: Any
    session: Any = None

    def __call__(self) -> object:
        """Run one forward pass."""
        return self.run()


@dataclass(frozen=True)
class Runtime:
    """A runtime: what it needs, which files it opens and how.

    Attributes:
        title: Name as its makers write it.
        extra: The extra of this package that installs it.
        modules: Modules needed to run a file.
        exports: Further modules that the host's exporter needs.
        suffix: Ending of its files or folders.
        precisions: Precisions that the host exports for it, or runs.
        open: Function that loads a file.
        format: The host's name of its export format; "" where the checkpoint itself is run.
    """

    title: str
    extra: str
    modules: tuple[str, ...]
    exports: tuple[str, ...]
    suffix: str
    precisions: tuple[Precision, ...]
    open: Callable[[Path, InferenceConfig], LoadedModel]
    format: str = ""

    def missing(self, precision: str, *, exporting: bool = True) -> list[str]:
        """Return the modules that are needed to run a file, and to export it, and are not installed."""
        quantiser = ("nncf",) if self.format == "openvino" and precision == "int8" else ()
        needed = self.modules + (self.exports + quantiser if exporting else ())
        return [name for name in needed if find_spec(name) is None]

    def offers(self, precision: str, device: str) -> bool:
        """Return whether the precision exists on the device: the host exports it, or PyTorch runs it."""
        on_gpu_only = not self.format and precision == "fp16"  # the host itself runs PyTorch in fp16 on GPUs only
        return precision in self.precisions and (device != "cpu" or not on_gpu_only)

    def require(self, precision: str, *, exporting: bool = True) -> None:
        """Check that all needed modules are installed.

        Raises:
            UserError: If one is missing; the message names the extra to install.
        """
        missing = self.missing(precision, exporting=exporting)
        if missing:
            lacking = " and ".join(missing) + (" is" if len(missing) == 1 else " are")
            raise UserError(f"{lacking} not installed; install with pip install 'ghost-yolo[{self.extra}]'")
        disable_telemetry()


def disable_telemetry() -> None:
    """Keep runtimes from reporting what they are used for.

    OpenVINO and NNCF use stubs of their own without this package. ONNX Runtime reports to Microsoft, from 1.29 on Linux too,
    unless it finds the variable when it is imported; processes that are started later find it as well.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # an import of None fails
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def require_cpu(title: str, config: InferenceConfig) -> None:
    """Check that no GPU is requested.

    Raises:
        UserError: If one is.
    """
    if config.device != "cpu":
        raise UserError(f"{title} runs on the CPU only; leave out --device {config.device}")


def open_pytorch(file: Path, config: InferenceConfig) -> LoadedModel:
    """Run the fused model in eager PyTorch."""
    import torch

    from ghost_yolo import host

    if config.device != "cpu" and int(config.device) >= torch.cuda.device_count():
        raise UserError(f"--device {config.device}: PyTorch sees no such GPU")
    torch.set_num_threads(config.threads)
    device = torch.device("cpu" if config.device == "cpu" else f"cuda:{config.device}")
    dtype = torch.float16 if config.precision == "fp16" else torch.float32
    model = host.load(file).fuse(verbose=False).to(device, dtype)
    image = torch.from_numpy(config.image()).to(device, dtype)

    def run() -> object:
        with torch.inference_mode():
            output = model(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return output

    return LoadedModel(run, image)


def open_onnx(file: Path, config: InferenceConfig, **session: Any) -> LoadedModel:
    """Run an ONNX file in ONNX Runtime; `session` sets attributes of its SessionOptions."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = config.threads, 1
    for name, value in session.items():
        setattr(options, name, value)
    providers: list[Any] = ["CPUExecutionProvider"]
    if config.device != "cpu":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise UserError(
                f"--device {config.device}: the installed onnxruntime has no CUDA; install onnxruntime-gpu instead"
            )
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(config.device)}))
    opened = onnxruntime.InferenceSession(str(file), options, providers=providers)
    if config.device != "cpu" and opened.get_providers()[0] != "CUDAExecutionProvider":
        raise UserError(  # onnxruntime itself only warns, and uses the CPU
            f"--device {config.device}: onnxruntime could not start CUDA on this GPU"
        )
    entry = opened.get_inputs()[0]
    image = config.image().astype(np.float16 if entry.type == "tensor(float16)" else np.float32)
    inputs = {entry.name: image}

    def run() -> object:
        return opened.run(None, inputs)

    return LoadedModel(run, image, opened)


def open_openvino(file: Path, config: InferenceConfig, **properties: Any) -> LoadedModel:
    """Run an OpenVINO model on the CPU; `properties` are further properties of the compiled model.

    The inference precision is set, because OpenVINO would compute float32 files in bfloat16 on a CPU with bfloat16 units:
    that is what a precision of `default` times.
    """
    import openvino

    require_cpu("OpenVINO", config)
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": config.threads}
    if config.precision != DEFAULT:
        settings["INFERENCE_PRECISION_HINT"] = "f16" if config.precision == "fp16" else "f32"
    compiled = openvino.Core().compile_model(str(_inside(file, "*.xml")), "CPU", settings | properties)
    request = compiled.create_infer_request()
    image = config.image()
    inputs = {0: image}

    def run() -> object:
        return list(request.infer(inputs).values())

    return LoadedModel(run, image, request)


def open_ncnn(file: Path, config: InferenceConfig) -> LoadedModel:
    """Run an NCNN model on the CPU, one image at a time as the host does."""
    import ncnn

    require_cpu("NCNN", config)
    param, half, net = _inside(file, "*.param"), config.precision == "fp16", ncnn.Net()
    net.opt.num_threads, net.opt.use_vulkan_compute = config.threads, False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = half
    if net.load_param(str(param)) or net.load_model(str(param.with_suffix(".bin"))):
        raise UserError(f"{param} is not a model that NCNN {ncnn.__version__} can load")
    images = config.image()

    def run() -> object:
        outputs = []
        for image in images:
            with net.create_extractor() as extractor:
                extractor.input(net.input_names()[0], ncnn.Mat(image))
                outputs += [np.array(extractor.extract(name)[1]) for name in net.output_names()]
        return outputs

    return LoadedModel(run, images)


def _inside(path: Path, pattern: str) -> Path:
    """Return the path itself if it is a file, else the matching file in the exported folder.

    Raises:
        UserError: If there is none.
    """
    found = [path] if path.is_file() else sorted(path.glob(pattern))
    if not found:
        raise UserError(f"there is no {pattern} in {path}")
    return found[0]


RUNTIMES = {
    "pytorch": Runtime("PyTorch", "", ("torch",), (), ".pt", ("fp32", "fp16"), open_pytorch),
    "onnx": Runtime(
        "ONNX Runtime", "export", ("onnxruntime",), ("onnx", "onnxslim"), ".onnx", PRECISIONS, open_onnx, "onnx"
    ),
    "openvino": Runtime(
        "OpenVINO", "openvino", ("openvino",), (), "_openvino_model", (*PRECISIONS, DEFAULT), open_openvino, "openvino"
    ),
    "ncnn": Runtime("NCNN", "ncnn", ("ncnn",), ("pnnx",), "_ncnn_model", ("fp32", "fp16"), open_ncnn, "ncnn"),
}


def installed() -> tuple[str, ...]:
    """Return the runtimes for which everything is installed that exporting and running a float32 file needs."""
    return tuple(name for name, row in RUNTIMES.items() if not row.missing("fp32"))


def runtime_of(model: str) -> str:
    """Return the runtime of an exported file or folder, "" for a YAML or a checkpoint."""
    path = model.rstrip("/\\")
    return next((name for name, row in RUNTIMES.items() if row.format and path.endswith(row.suffix)), "")


def file_mb(file: Path) -> float:
    """Return the size of a model's graph and weights in 1024 x 1024 bytes."""
    patterns = ("*.xml", "*.bin", "*.param")
    files = [file] if file.is_file() else [part for pattern in patterns for part in file.glob(pattern)]
    return sum(part.stat().st_size for part in files) / MB


def peak_memory_mb() -> float:
    """Return the peak memory (RAM) of this process in 1024 x 1024 bytes.

    On Linux, getrusage also counts the parent process before exec, so /proc is read instead.
    """
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / MB
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB  # bytes on macOS
