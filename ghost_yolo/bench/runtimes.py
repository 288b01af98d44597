"""The runtimes that `ghost-yolo bench` can time: a table, one row each. Loads none of them before it is opened."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ghost_yolo.errors import UserError

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
MB = 1024 * 1024


@dataclass(frozen=True)
class Setup:
    """How a file is run.

    Attributes:
        batch: Images in one forward pass.
        imgsz: Image side in pixels.
        channels: Channels of an image.
        precision: What the file was exported for.
        device: `cpu`, or the number of a GPU.
        threads: Threads of the CPU.
    """

    batch: int
    imgsz: int
    channels: int
    precision: str
    device: str
    threads: int

    def image(self) -> NDArray[np.float32]:
        """Return the same noise (b, c, h, w) in 0..1 each time."""
        shape = (self.batch, self.channels, self.imgsz, self.imgsz)
        return np.random.RandomState(0).rand(*shape).astype(np.float32)


@dataclass(frozen=True)
class Runtime:
    """One row of the table.

    Attributes:
        title: Its name as written by its makers.
        extra: The extra of this package that installs it.
        modules: What must be importable to run a file.
        exports: What the host's exporter needs besides.
        suffix: How its files or folders end, for those that a user gives.
        precisions: What the host exports for it, or runs.
        open: Load a file and return a function that does one forward pass, waits for its end and returns the outputs.
        format: The host's word for its export format; "" where the checkpoint itself is run.
    """

    title: str
    extra: str
    modules: tuple[str, ...]
    exports: tuple[str, ...]
    suffix: str
    precisions: tuple[Precision, ...]
    open: Callable[[Path, Setup], Callable[[], object]]
    format: str = ""

    def missing(self, precision: str, *, exporting: bool = True) -> list[str]:
        """Return what is not installed of all that running a file needs, and exporting it."""
        quantiser = ("nncf",) if self.format == "openvino" and precision == "int8" else ()
        needed = self.modules + (self.exports + quantiser if exporting else ())
        return [name for name in needed if find_spec(name) is None]

    def offers(self, precision: str, device: str) -> bool:
        """Whether there is such a precision: the host exports it, or PyTorch runs it."""
        on_gpu_only = not self.format and precision == "fp16"  # the host itself runs PyTorch in fp16 on GPUs only
        return precision in self.precisions and (device != "cpu" or not on_gpu_only)

    def require(self, precision: str, *, exporting: bool = True) -> None:
        """Raise an error that says what to install."""
        missing = self.missing(precision, exporting=exporting)
        if missing:
            lacking = " and ".join(missing) + (" is" if len(missing) == 1 else " are")
            raise UserError(f"{lacking} not installed; install with pip install 'ghost-yolo[{self.extra}]'")


def only_cpu(title: str, setup: Setup) -> None:
    """Raise an error where a GPU is asked for."""
    if setup.device != "cpu":
        raise UserError(f"{title} is timed on the CPU only; leave out --device {setup.device}")


def open_pytorch(file: Path, setup: Setup) -> Callable[[], object]:
    """Run the fused model in eager PyTorch."""
    import torch

    from ghost_yolo import host

    if setup.device != "cpu" and int(setup.device) >= torch.cuda.device_count():
        raise UserError(f"PyTorch sees no GPU {setup.device} here")
    torch.set_num_threads(setup.threads)
    device = torch.device("cpu" if setup.device == "cpu" else f"cuda:{setup.device}")
    kind = torch.float16 if setup.precision == "fp16" else torch.float32
    model = host.load(file).fuse(verbose=False).to(device, kind)
    image = torch.from_numpy(setup.image()).to(device, kind)

    def run() -> object:
        with torch.inference_mode():
            output = model(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return output

    return run


def open_onnx(file: Path, setup: Setup, **session: Any) -> Callable[[], object]:
    """Run an ONNX file in ONNX Runtime; further words are attributes of its session's options."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = setup.threads, 1
    for name, value in session.items():
        setattr(options, name, value)
    providers: list[Any] = ["CPUExecutionProvider"]
    if setup.device != "cpu":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise UserError("this onnxruntime has no CUDA; install onnxruntime-gpu in its place")
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(setup.device)}))
    opened = onnxruntime.InferenceSession(str(file), options, providers=providers)
    if setup.device != "cpu" and opened.get_providers()[0] != "CUDAExecutionProvider":
        raise UserError(f"onnxruntime could not start CUDA on GPU {setup.device}")  # it only warns, and uses the CPU
    inputs = {opened.get_inputs()[0].name: setup.image()}

    def run() -> object:
        return opened.run(None, inputs)

    run.session = opened  # type: ignore[attr-defined]
    return run


def open_openvino(file: Path, setup: Setup, **more: Any) -> Callable[[], object]:
    """Run an OpenVINO model on its CPU device; further words are properties of the compiled model.

    A CPU with bfloat16 units would else compute float32 files in bfloat16: the precision is said.
    """
    import openvino

    only_cpu("OpenVINO", setup)
    precision = "f16" if setup.precision == "fp16" else "f32"
    words = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": setup.threads,
        "INFERENCE_PRECISION_HINT": precision,
    }
    compiled = openvino.Core().compile_model(str(_inside(file, "*.xml")), "CPU", words | more)
    request = compiled.create_infer_request()
    inputs = {0: setup.image()}

    def run() -> object:
        return list(request.infer(inputs).values())

    run.session = request  # type: ignore[attr-defined]
    return run


def open_ncnn(file: Path, setup: Setup) -> Callable[[], object]:
    """Run an NCNN model on the CPU, image by image as the host does."""
    import ncnn

    only_cpu("NCNN", setup)
    param, half, net = _inside(file, "*.param"), setup.precision == "fp16", ncnn.Net()
    net.opt.num_threads, net.opt.use_vulkan_compute = setup.threads, False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = half
    if net.load_param(str(param)) or net.load_model(str(param.with_suffix(".bin"))):
        raise UserError(f"{param} is not a model that NCNN {ncnn.__version__} can load")
    images = [np.ascontiguousarray(image) for image in setup.image()]

    def run() -> object:
        outputs = []
        for image in images:
            with net.create_extractor() as extractor:
                extractor.input(net.input_names()[0], ncnn.Mat(image))
                outputs += [np.array(extractor.extract(name)[1]) for name in net.output_names()]
        return outputs

    return run


def _inside(path: Path, pattern: str) -> Path:
    """Return the file itself, or the one in a folder that the host exported.

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
        "OpenVINO", "openvino", ("openvino",), (), "_openvino_model", PRECISIONS, open_openvino, "openvino"
    ),
    "ncnn": Runtime("NCNN", "ncnn", ("ncnn",), ("pnnx",), "_ncnn_model", ("fp32", "fp16"), open_ncnn, "ncnn"),
}


def installed() -> tuple[str, ...]:
    """Return the runtimes for which all is installed that a float32 file needs."""
    return tuple(word for word, row in RUNTIMES.items() if not row.missing("fp32"))


def runtime_of(model: str) -> str:
    """Return the runtime of an exported file or folder, "" for a YAML or a checkpoint."""
    name = model.rstrip("/\\")
    return next((word for word, row in RUNTIMES.items() if row.format and name.endswith(row.suffix)), "")


def file_mb(file: Path) -> float:
    """Return the size of a model's graph and weights in 1024 x 1024 bytes."""
    kinds = ("*.xml", "*.bin", "*.param")
    files = [file] if file.is_file() else [part for kind in kinds for part in file.glob(kind)]
    return sum(part.stat().st_size for part in files) / MB


def peak_memory_mb() -> float:
    """Return the largest main memory of this process in 1024 x 1024 bytes.

    Linux' getrusage also counts the process that started this one, so its own record is read there.
    """
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / MB
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB  # bytes on macOS
