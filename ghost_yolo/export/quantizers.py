"""Static quantization of the host's float32 exports: OpenVINO by NNCF, ONNX by ONNX Runtime."""

from __future__ import annotations

import ast
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from ultralytics.utils import DEFAULT_CFG_DICT

from ghost_yolo.data.images import to_float
from ghost_yolo.errors import UserError
from ghost_yolo.utils.console import log_level

Images = Sequence[torch.Tensor]  # (3, h, w) each, uint8
OPENVINO_ROOT = "__module."  # before a module's name in the names of OpenVINO's operations
# Operations with weights, by OpenVINO and by ONNX
WEIGHTED = ("Convolution", "GroupConvolution", "MatMul", "Conv", "Gemm")
# Of ONNX, which pass integers on: left in float32 they cost a conversion on either side
PASSING = ("Relu", "Clip", "Concat", "MaxPool", "Resize", "Add", "Split")


def to_input(image: torch.Tensor) -> NDArray[np.float32]:
    """Return an image as files take it, (1, 3, h, w), float32 in 0..1; one by one, since a thousand would take gigabytes."""
    found: NDArray[np.float32] = to_float(image)[None].numpy()
    return found


def quantize_openvino(fp32: Path, made: Path, images: Images, exclude: Sequence[str]) -> None:
    """Write an INT8 OpenVINO folder from a float32 one.

    Args:
        fp32: Folder that the host exported.
        made: Folder to make.
        images: For calibration.
        exclude: Names of modules that stay in float32.

    Raises:
        UserError: If there is no such module.
    """
    import nncf
    import openvino

    xml = next(fp32.glob("*.xml"))
    model = openvino.Core().read_model(xml)
    operations = {op.get_friendly_name(): op.get_type_name() for op in model.get_ordered_ops()}
    weighted = {name: openvino_module(name) for name, kind in operations.items() if kind in WEIGHTED}
    ignored = decode_operations(operations) | excluded(weighted, exclude)
    with log_level(logging.getLogger("nncf"), logging.WARNING):  # a line for each of the ignored
        quantized = nncf.quantize(
            model,
            nncf.Dataset(images, to_input),
            preset=nncf.QuantizationPreset.MIXED,  # asymmetric activations: SiLU's are not symmetric
            subset_size=len(images),
            fast_bias_correction=False,  # that of NNCF that runs the layers costs seconds and loses less, results/tenfold.md
            ignored_scope=nncf.IgnoredScope(names=sorted(ignored)),
        )
    made.mkdir()
    openvino.save_model(quantized, made / xml.name, compress_to_fp16=False)
    metadata: dict[str, Any] = yaml.safe_load((fp32 / "metadata.yaml").read_text(encoding="utf-8"))
    metadata["args"] = int8_arguments(metadata.get("args"))
    (made / "metadata.yaml").write_text(yaml.safe_dump(metadata, sort_keys=False), encoding="utf-8")


def decode_operations(operations: Mapping[str, str]) -> set[str]:
    """Return the OpenVINO operations of the head's decode, chosen as the host's exporter does.

    Args:
        operations: Name to type, in the order of computation.
    """
    sigmoids = [name for name, kind in operations.items() if kind == "Sigmoid"]
    if not sigmoids:  # a classifier
        return set()
    head = sigmoids[-1].split("/", 1)[0]
    return {*sigmoids, *(name for name in operations if name.startswith((f"{head}/", f"{head}.dfl")))}


def openvino_module(operation: str) -> str:
    """Return the torch name of the module that an OpenVINO operation comes from, "" for none."""
    return operation.removeprefix(OPENVINO_ROOT).split("/")[0] if operation.startswith(OPENVINO_ROOT) else ""


def onnx_module(node: str) -> str:
    """Return the torch name of the module that an ONNX node comes from: /model.22/cv3.0/cv3.0.2/Conv is in model.22.cv3.0.2."""
    names: list[str] = []
    for part in node.strip("/").split("/")[:-1]:
        if names and part.startswith(f"{names[-1]}."):  # an item of a list repeats the list's name
            names.pop()
        names.append(part)
    return ".".join(names)


def excluded(modules: Mapping[str, str], exclude: Sequence[str]) -> set[str]:
    """Return the operations that lie in the excluded modules.

    Args:
        modules: Operation to the torch name of its module; of OpenVINO those with weights, since the host's convolutions share
            one activation module, so that all activations bear one module's name.
        exclude: Names of modules.

    Raises:
        UserError: If there is no such module.
    """
    found: set[str] = set()
    for name in exclude:
        inside = {operation for operation, module in modules.items() if f"{module}.".startswith(f"{name}.")}
        if not inside:
            known = sorted({".".join(module.split(".")[:2]) for module in modules.values()} - {""})
            raise UserError(f"there is no module {name!r} to exclude; give one of {', '.join(known)}")
        found |= inside
    return found


def quantize_onnx(fp32: Path, made: Path, images: Images, exclude: Sequence[str]) -> None:
    """Write an INT8 ONNX file from a float32 one: QDQ, weights per channel; see `quantize_openvino`.

    Activations are unsigned: with signed ones, ONNX Runtime's default, a YOLOv8n with ReLU at 320 pixels took 22.8 ms on one
    core with AVX-512 VNNI, as float32 17.7, and unsigned with the operations of PASSING 8.6.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    model = onnx.load(str(fp32))
    modules = {node.name: onnx_module(node.name) for node in model.graph.node}
    integer = {node.name for node in model.graph.node if node.op_type in WEIGHTED + PASSING}
    left = modules.keys() - integer | decode_nodes(modules) | excluded(modules, exclude)

    class Reader(CalibrationDataReader):
        """The images, one by one."""

        def __init__(self) -> None:
            self.inputs = map(to_input, images)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            """Return the next image."""
            image = next(self.inputs, None)
            return None if image is None else {model.graph.input[0].name: image}

    with log_level(logging.getLogger(), logging.ERROR):  # advice to simplify the graph, which the exporter has done
        quantize_static(
            model,
            str(made),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(left),
        )
    _keep_metadata(model, made)


def decode_nodes(modules: Mapping[str, str]) -> set[str]:
    """Return the ONNX nodes of the head's decode: what the last module itself computes, and its distributions.

    Args:
        modules: Name of a node to the torch name of its module, in the order of computation.
    """
    named = [module for module in modules.values() if module.startswith("model.")]
    head = ".".join(named[-1].split(".")[:2]) if named else ""
    return {name for name, module in modules.items() if module == head or f"{module}.".startswith(f"{head}.dfl.")}


def _keep_metadata(model: Any, made: Path) -> None:
    """Write the host's metadata, by which it opens the file, into the quantized one."""
    import onnx

    quantized = onnx.load(str(made))
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    metadata["args"] = str(int8_arguments(ast.literal_eval(metadata.get("args", "{}"))))
    onnx.helper.set_model_props(quantized, metadata)
    onnx.save(quantized, str(made))


def int8_arguments(arguments: dict[str, Any] | None) -> dict[str, Any]:
    """Return export arguments that say INT8 as the installed host does."""
    return (arguments or {}) | ({"quantize": 8} if "quantize" in DEFAULT_CFG_DICT else {"int8": True})
