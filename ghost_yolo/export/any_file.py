"""Verify a file that is there already, of any runtime and precision, against the checkpoint that it was exported from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics.utils import ASSETS

from ghost_yolo.bench.exporting import describe_exported
from ghost_yolo.bench.plan import ModelInfo
from ghost_yolo.bench.runtimes import RUNTIMES, InferenceConfig, runtime_of
from ghost_yolo.data.images import read_image
from ghost_yolo.errors import UserError
from ghost_yolo.export.outputs import Array, compare
from ghost_yolo.export.quantizers import onnx_module, openvino_module
from ghost_yolo.export.verify import Verification, as_exported, flatten, make_inputs, picks_boxes
from ghost_yolo.model.checkpoint import OpenedModel, open_checkpoint
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.system import default_threads

LAYER_TOLERANCES = {"fp32": 1e-3, "fp16": 0.02, "int8": 0.25}  # of a layer's maps, relative to their spread


def verify_file(file: Path, checkpoint: Path, images: Sequence[Path] = ()) -> Verification:
    """Compare what an exported file computes with what its checkpoint computes, on noise and on photographs.

    Args:
        file: An ONNX file, or an OpenVINO or NCNN folder, of any precision and of fixed or dynamic size.
        checkpoint: The checkpoint that it was exported from.
        images: Photographs; the host's sample where none is given.

    Raises:
        UserError: If a file cannot be read, or the outputs are of another form.
    """
    runtime = runtime_of(str(file))
    opened, info = open_checkpoint(checkpoint), describe_exported(file, runtime)
    require_comparable(opened, info, file)
    RUNTIMES[runtime].require(info.precision, exporting=False)
    size = (info.imgsz[0], info.imgsz[-1]) if info.imgsz else (opened.trained_imgsz, opened.trained_imgsz)
    config = InferenceConfig(1, size, info.channels, info.precision, "cpu", default_threads())
    end2end = picks_boxes(opened.model, info.end2end)
    loaded, reference = RUNTIMES[runtime].open(file, config), as_exported(opened.model, end2end)
    checks, worst = [], ""
    for name, image in inputs(size, images, info.channels):
        with torch.inference_mode():
            expected = flatten(reference(torch.from_numpy(image)))
        loaded.image[...] = image.reshape(loaded.image.shape)
        found = as_shaped(flatten_arrays(loaded()), expected)
        checks.append(compare(found, expected, info.nc, size, name, info.precision, end2end))
        if not checks[-1].passed and not worst:
            worst = first_difference(file, runtime, reference, image, LAYER_TOLERANCES[info.precision])
    return Verification(file, checks, worst)


def require_comparable(opened: OpenedModel, info: ModelInfo, file: Path) -> None:
    """Check that a file's outputs can be compared with the checkpoint's.

    Raises:
        UserError: If they are of other tasks or classes, the file takes batches, or itself drops what overlaps (`nms=True`).
    """
    if (info.task, info.nc) != (opened.task, opened.nc):
        own, other = f"{info.task} with {info.nc} classes", f"{opened.task} with {opened.nc}"
        raise UserError(f"{file} is a model for {own}, and the checkpoint {opened.name} for {other}")
    if info.batch != 1 and not info.dynamic:
        raise UserError(f"{file} takes batches of {info.batch}; verify one that was exported with batch=1")
    if info.nms:
        raise UserError(f"{file} was exported with nms=True; outputs with NMS inside cannot be compared with PyTorch's")


def inputs(size: tuple[int, int], images: Sequence[Path], channels: int) -> Iterator[tuple[str, Array]]:
    """Yield noise and the letterboxed photographs, each (1, channels, h, w) in 0..1."""
    for number, path in enumerate(images or [ASSETS / "bus.jpg"]):
        (_, noise), (_, image) = make_inputs(size, read_image(path), channels)
        if not number:
            yield "noise", noise
        yield path.name if images else "image", image


def flatten_arrays(output: Any) -> list[Array]:
    """Return a runtime's outputs as arrays."""
    return [np.asarray(part, np.float32) for part in output]


def as_shaped(found: Sequence[Array], expected: Sequence[Array]) -> list[Array]:
    """Return a file's outputs in the shapes of PyTorch's, since NCNN leaves out the batch.

    Raises:
        UserError: If they have other numbers of elements.
    """
    if [array.size for array in found] != [array.size for array in expected]:
        shapes = [[array.shape for array in arrays] for arrays in (found, expected)]
        raise UserError(f"the file's outputs are {shapes[0]}, PyTorch's are {shapes[1]}")
    return [array.reshape(other.shape) for array, other in zip(found, expected, strict=True)]


def first_difference(file: Path, runtime: str, reference: HostModel, image: Array, tolerance: float) -> str:
    """Return the first layer whose maps differ from PyTorch's by more than a share of their spread on average, in words."""
    expected = layer_maps(reference, image)
    found = LAYERS[runtime](file, image, expected)
    for name, maps in expected.items():
        if name not in found or found[name].size != maps.size:
            continue
        error = float(np.abs(found[name].reshape(maps.shape) - maps).mean() / max(float(maps.std()), 1e-9))
        if not error <= tolerance:
            kind = type(reference.model[int(name.split(".")[1])]).__name__
            return f"first layer that differs: {name} ({kind}), by {error:.2g} of its spread (tolerance {tolerance:g})"
    return "all layers before the head are alike: the head differs"


def layer_maps(model: HostModel, image: Array) -> dict[str, Array]:
    """Return the maps of every layer before the head, by its name such as `model.3`."""
    maps: dict[str, Array] = {}

    def keep(name: str) -> Any:
        return lambda _, __, output: maps.update({name: output.numpy().copy()})

    layers = list(enumerate(model.model))[:-1]
    hooks = [layer.register_forward_hook(keep(f"model.{number}")) for number, layer in layers]
    with torch.inference_mode():
        model(torch.from_numpy(image))
    for hook in hooks:
        hook.remove()
    return maps


def last_of_layers(operations: Mapping[str, str]) -> dict[str, str]:
    """Return each layer's last operation.

    Args:
        operations: Name of an operation to the torch name of its module, in the order of computation.
    """
    return {".".join(module.split(".")[:2]): name for name, module in operations.items() if module.startswith("model.")}


def onnx_maps(file: Path, image: Array, _: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
    """Return what an ONNX file computes at the end of each layer."""
    import onnx
    import onnxruntime

    model = onnx.load(str(file))
    last = last_of_layers({node.output[0]: onnx_module(node.name) for node in model.graph.node})
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in last.values() if name not in known)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(last, session.run(list(last.values()), {session.get_inputs()[0].name: image}), strict=True))


def openvino_maps(file: Path, image: Array, _: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
    """Return what an OpenVINO model computes at the end of each layer."""
    import openvino

    core = openvino.Core()
    model = core.read_model(next(file.glob("*.xml")))
    operations = {op.get_friendly_name(): op for op in model.get_ordered_ops() if op.get_type_name() != "Constant"}
    modules: dict[str, str] = {}
    for name in operations:
        module = openvino_module(name)
        shared = module.endswith(".act")  # all activations bear the name of one: this one follows its convolution
        modules[name] = next(reversed(modules.values()), "") if shared else module
    last, before = last_of_layers(modules), len(model.outputs)
    del last[max(last, key=lambda layer: int(layer.split(".")[1]))]  # the head, which is an output already
    model.add_outputs([operations[name].output(0) for name in last.values()])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return dict(zip(last, list(compiled({0: image}).values())[before:], strict=True))


def ncnn_maps(file: Path, image: Array, expected: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
    """Return for each layer the maps most like PyTorch's, of all that an NCNN model computes: it keeps no names of layers."""
    import ncnn

    param, net = next(file.glob("*.param")), ncnn.Net()
    net.opt.use_vulkan_compute = net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = (
        False
    )
    net.load_param(str(param))
    net.load_model(str(param.with_suffix(".bin")))
    with net.create_extractor() as extractor:
        extractor.set_light_mode(False)  # keeps what is between input and output
        extractor.input(net.input_names()[0], ncnn.Mat(image[0]))
        computed = [np.array(extractor.extract(blob.name)[1]) for blob in net.blobs()]
    return {
        name: min(same, key=lambda one: float(np.abs(one - maps).mean()))
        for name, maps in expected.items()
        if (same := [one.reshape(maps.shape) for one in computed if one.size == maps.size])
    }


LAYERS = {"onnx": onnx_maps, "openvino": openvino_maps, "ncnn": ncnn_maps}
