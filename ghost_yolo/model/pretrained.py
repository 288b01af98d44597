"""Initialise a detector's backbone from a pretrained classifier: `ghost-yolo pretrained`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.utils.torch_utils import get_num_params

from ghost_yolo import host
from ghost_yolo.blocks.backbone import LEVELS, NETWORKS, Backbone, NetworkEntry
from ghost_yolo.errors import WeightsError
from ghost_yolo.model.catalog import packaged, resolve, with_scale
from ghost_yolo.nets.network import Network
from ghost_yolo.nets.weights import load_by_order
from ghost_yolo.tables import to_text
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.bounded import MAX_TENSORS
from ghost_yolo.utils.console import quiet

Weights = Mapping[str, torch.Tensor]


def initialise(name: str, weights: Path | None, out: Path) -> str:
    """Build the model of a YAML, copy a classifier's weights into its backbone and write it as a checkpoint.

    The normalisation of the classifier's images becomes part of the first convolution, as a detector gets pixels in 0..1.

    Args:
        name: A YAML with `ghost_yolo.Backbone` rows, its scale letter in the name.
        weights: The classifier's weight file; None fetches the weights that timm or torchvision has.
        out: The checkpoint to write.

    Returns:
        A table of the transferred tensors, row by row, and a line about the others.

    Raises:
        UserError: If the YAML, the library or the weights cannot be used.
    """
    file, scale = resolve(name)
    with quiet():
        model = host.build(host.read_yaml(file) | {"scale": scale})
    rows = _rows(name, model)
    first = next(iter(rows.values()))
    where = f"{name}, row{'s' * (len(rows) > 1)} {', '.join(map(str, rows))} ({first.network}, width {first.width})"
    net, left = _classifier(first.network, first.width, weights, where)
    for row in rows.values():
        move(net.levels()[LEVELS.index(row.level)], row.m)
        if row.level == LEVELS[0]:
            fold_normalisation(row.m, NETWORKS[row.network])
    host.save(model, out)
    return _report(model, rows, first.network, left, out)


def _rows(name: str, model: HostModel) -> dict[int, Backbone]:
    """Return the backbone's rows by index; raise an error where there is none or several networks share the model."""
    layers: list[Any] = [*model.model]
    rows = {i: layer for i, layer in enumerate(layers) if isinstance(layer, Backbone)}
    if not rows:
        items = [item for item in packaged().values() if item.is_model]
        known = [with_scale(i.name, "s") for i in items if "ghost_yolo.Backbone" in i.path.read_text(encoding="utf-8")]
        raise WeightsError(f"{name} has no ghost_yolo.Backbone row. Packaged models that have: {', '.join(known)}")
    networks = sorted({f"{row.network} at width {row.width}" for row in rows.values()})
    if len(networks) > 1:
        raise WeightsError(f"{name} has rows of {' and '.join(networks)}: give one network at one width")
    return rows


def _classifier(network: str, width: float, file: Path | None, where: str) -> tuple[Network, int]:
    """Return the network with its weights, and how many of its tensors no backbone takes."""
    source = NETWORKS[network].weights.get(width, "")
    if file is None and not source:
        known = [f"{n} at width {w}" for n, entry in NETWORKS.items() for w in entry.weights]
        raise WeightsError(
            f"{where}: neither timm nor torchvision has its weights; they have {', '.join(known)}. "
            "Give a file of your own: --weights FILE"
        )
    tensors = fetch(source) if file is None else read(file, source)
    last = list(tensors.values())[-1]  # the bias of the classes, in every network of the table
    net = NETWORKS[network].make(num_classes=len(last) if last.ndim else 1, width=width)
    try:
        load_by_order(net, tensors)
    except WeightsError as error:
        raise WeightsError(f"{where} cannot take {file or source}: {error}") from error
    return net, len(tensors) - sum(len(level.state_dict()) for level in net.levels())


def fetch(source: str) -> Weights:
    """Return the pretrained weights that a library offers, by its own loader, which downloads them.

    Raises:
        WeightsError: If the library is missing or cannot be reached.
    """
    try:
        return _library_network(source, pretrained=True).state_dict()
    except WeightsError:
        raise
    except Exception as error:  # the libraries and what they download with raise kinds of their own
        raise WeightsError(
            f"{source} could not be fetched ({type(error).__name__}: {error}). Without a connection, give a weight file: "
            "--weights FILE"
        ) from error


def _timm(purpose: str) -> Any:
    """Return timm, or raise an error that says what it is needed for."""
    try:
        import timm
    except ImportError as error:
        raise WeightsError(
            f"{purpose}: timm is not installed; install it with pip install 'ghost-yolo[pretrained]'"
        ) from error
    return timm


def _library_network(source: str, *, pretrained: bool) -> nn.Module:
    """Return a library's own network."""
    library, _, name = source.partition("/")
    if library == "torchvision":
        import torchvision

        return torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None)
    return _timm(source).create_model(name, pretrained=pretrained)


def read(file: Path, source: str) -> Weights:
    """Return the tensors of a weight file in the network's order.

    Args:
        file: A state dict, alone or inside a training script's checkpoint (EMA weights first), or a safetensors file.
        source: The library's network, whose names put the sorted tensors of a safetensors file in order.

    Raises:
        WeightsError: If there is no such file or it holds no state dict.
    """
    if not file.is_file():
        raise WeightsError(f"--weights {file}: there is no such file. Leave the option out to download the weights.")
    load_state_dict = _timm(f"--weights {file}").models.load_state_dict
    try:
        content = load_state_dict(str(file), use_ema=True, weights_only=True)
    except Exception as error:  # damaged and foreign files fail in many ways
        raise WeightsError(
            f"--weights {file} is no weight file ({type(error).__name__}). Right is a state dict, written by "
            "torch.save(net.state_dict(), FILE), or timm's safetensors file"
        ) from error
    if not content or not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise WeightsError(f"--weights {file} holds no state dict: write one by torch.save(net.state_dict(), FILE)")
    if (values := sum(tensor.numel() for tensor in content.values())) > MAX_TENSORS:  # a file may hold one, expanded
        raise WeightsError(f"--weights {file}: its tensors have {values} values; at most {MAX_TENSORS} are read")
    if bad := [name for name, tensor in content.items() if tensor.is_floating_point() and not tensor.isfinite().all()]:
        raise WeightsError(f"--weights {file}: {bad[0]} is not finite")
    return _in_order(content, file, source) if file.suffix == ".safetensors" else content


def _in_order(tensors: Weights, file: Path, source: str) -> Weights:
    """Return the tensors of a safetensors file, which sorts them, in the order of the library's network."""
    if not source:
        raise WeightsError(f"--weights {file}: a safetensors file does not keep the network's order: give a .pth file")
    order = _library_network(source, pretrained=False).state_dict()
    if missing := [name for name in order if name not in tensors]:
        raise WeightsError(f"--weights {file} has no {missing[0]}: it is not of {source}")
    return {name: tensors[name] for name in order}


@torch.no_grad()
def move(level: nn.Module, into: nn.Module) -> None:
    """Copy a classifier's level into a detector's, so that its maps stay the same.

    The host gives every BN of a detector an eps of 0.001, which would shrink channels of small variance: the running
    variance is lowered by the difference, and where it is too small, the weight is scaled instead.
    """
    into.load_state_dict(level.state_dict())
    modules: Iterator[tuple[Any, Any]] = zip(level.modules(), into.modules(), strict=True)
    for theirs, ours in [pair for pair in modules if isinstance(pair[0], nn.BatchNorm2d)]:
        total = theirs.running_var + theirs.eps
        ours.running_var.copy_((total - ours.eps).clamp(min=0))
        ours.weight.mul_(((ours.running_var + ours.eps) / total).sqrt())


@torch.no_grad()
def fold_normalisation(level: nn.Module, entry: NetworkEntry) -> None:
    """Have a classifier's first level take pixels in 0..1 as they are, as a detector's first row gets them.

    Its first convolution is followed by BN, or has a bias. Where that convolution reaches over the image's edge its zeros were
    the mean colour, and are black now.
    """
    modules: list[Any] = [m for m in level.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    conv, following = modules[:2]
    mean, std = (torch.tensor(values)[:, None, None] for values in (entry.mean, entry.std))
    conv.weight.div_(std)
    shift = (conv.weight * mean).sum((1, 2, 3))
    if conv.bias is not None:
        conv.bias.sub_(shift)
    else:
        following.running_mean.add_(shift)


def _report(model: HostModel, rows: Mapping[int, Backbone], network: str, left: int, out: Path) -> str:
    """Return the table of what was transferred."""
    header = ["tensors", "module", "transferred", "of", "parameters transferred", "of"]
    layers = [(i, layer, len(layer.state_dict()), get_num_params(layer)) for i, layer in enumerate(model.model)]
    lines = [
        [f"model.{i}.*", layer.type.rpartition(".")[2], *_shares(i in rows, tensors), *_shares(i in rows, parameters)]
        for i, layer, tensors, parameters in layers
        if tensors or i in rows
    ]
    moved = [sum(numbers) for numbers in zip(*((t, p) for i, _, t, p in layers if i in rows), strict=True)]
    stayed = [sum(numbers) for numbers in zip(*((t, p) for i, _, t, p in layers if i not in rows), strict=True)]
    entry = NETWORKS[network]
    normalised = f"mean {entry.mean} and std {entry.std} of the classifier's images are part of the first convolution"
    note = "; ".join(filter(None, [normalised, entry.note]))
    return (
        f"{to_text(header, lines)}\n"
        f"transferred: {moved[0]} tensors, {moved[1]} parameters; randomly initialised: {stayed[0]} tensors, "
        f"{stayed[1]} parameters; left out: {left} tensors of the classifier after the last map\n"
        f"{note}\n"
        f"wrote {out}: yolo train model={out}\n"
    )


def _shares(moved: bool, number: int) -> tuple[str, str]:
    """Return how many of a row's tensors or parameters were transferred: all or none."""
    return str(number if moved else 0), str(number)
