"""Another width or activation: the YAML of the model that a trained one becomes.

Widths are written out as channels, so that the rows say what they are and no scale changes them again. The host's own words
are kept, so that stock Ultralytics builds the result.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from ultralytics.nn.modules.block import C2, C2PSA, SPPF, Bottleneck, C2f, C3k, C3k2
from ultralytics.nn.modules.conv import Conv
from ultralytics.utils.ops import make_divisible

from ghost_yolo.errors import SwapError, UserError
from ghost_yolo.model.forward import forward_until, has_weights, input_indices
from ghost_yolo.model.swap import HOSTS, Config, yaml_rows
from ghost_yolo.typing import HostLayer, HostModel

ACTIVATIONS = {
    "relu": "torch.nn.ReLU()",
    "relu6": "torch.nn.ReLU6()",
    "leakyrelu": "torch.nn.LeakyReLU(0.1)",
    "hardswish": "torch.nn.Hardswish()",
    "silu": "torch.nn.SiLU()",
}
NARROWED = (Conv, C2f, C3k2, C2, C2PSA, SPPF)  # whose handlers can choose among maps
# Multiples of 16, of 8 below 32 channels: others run slower than the next larger one
SMALL, STEP_SMALL, STEP = 32, 8, 16
FIRST_PARTS_STRIDE = 8  # up to P3, where the maps are large


@dataclass(frozen=True)
class RowWidth:
    """Width of a row.

    Attributes:
        channels: Channels of its output.
        hidden: Channels of each half of a C2f's or C2PSA's inner maps; None where the row has none.
        kept: Why the row keeps its width, "" where it has the share that was asked for.
    """

    channels: int
    hidden: int | None = None
    kept: str = ""


def require_activation(name: str) -> None:
    """Check the name of an activation.

    Raises:
        UserError: If there is none of that name.
    """
    if name and name not in ACTIVATIONS:
        raise UserError(f"--act {name}: must be one of {', '.join(ACTIVATIONS)}")


def parse_shares(text: str) -> tuple[float, ...]:
    """Return the shares that a text such as `0.5,0.625` gives.

    Raises:
        UserError: If it gives something else than numbers.
    """
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UserError(f"--width {text}: must be one share of the channels such as 0.5, or two as 0.5,0.625") from None


def require_shares(shares: Sequence[float]) -> None:
    """Check the shares of the width: one, or two for the rows up to stride 8 and those behind.

    Raises:
        UserError: If there are more, or one is out of its range.
    """
    if len(shares) > 2 or not all(0 < share <= 1 for share in shares):
        text = ",".join(f"{share:g}" for share in shares)
        raise UserError(
            f"--width {text}: must be one share of the channels such as 0.5, or two, up to P3 and behind it, as 0.5,0.625"
        )


def round_width(channels: int, share: float) -> int:
    """Return a share of the channels as a multiple of 16, or of 8 below 32; never more than there are."""
    wanted = channels * share
    step = STEP_SMALL if wanted < SMALL else STEP
    return min(channels, max(1, round(wanted / step)) * step)


def require_least(layer: HostLayer, channels: int, share: float) -> None:
    """Check that a share of a row's channels is not rounded up from nothing.

    Raises:
        SwapError: If it is.
    """
    if 2 * channels * share < STEP_SMALL <= channels:
        least = math.ceil(1000 * STEP_SMALL / 2 / channels) / 1000
        raise SwapError(
            f"Row {layer.i}, {layer.type.rpartition('.')[2]}, has {channels} channels: --width {share:g} leaves "
            f"{channels * share:.1f} of them, and a row has at least {STEP_SMALL}; give {least:g} or more there"
        )


@torch.no_grad()
def plan_widths(model: HostModel, shares: Sequence[float], swapped: Mapping[int, str]) -> dict[int, RowWidth]:
    """Return the width of each row before the head that has weights.

    Args:
        model: The trained model.
        shares: See `require_shares`.
        swapped: Rows that are replaced by another module, which may be as narrow as they like.

    Raises:
        SwapError: If a share leaves nothing of a row.
    """
    plan: dict[int, RowWidth] = {}
    kept = find_kept(model, swapped)
    side, last = 2 * int(max(model.stride)), len(model.model) - 1
    image = torch.zeros(1, 3, side, side, device=next(model.parameters()).device)
    maps = forward_until(model, image, last, range(last))[1]
    for layer in model.model[:last]:
        if not has_weights(layer):
            continue  # as wide as what reaches it
        shape = maps[layer.i].shape
        share = shares[0] if side // shape[2] <= FIRST_PARTS_STRIDE else shares[-1]
        plan[layer.i] = _row_width(layer, shape[1], share, plan, kept.get(layer.i, ""))
        if not plan[layer.i].kept:
            require_least(layer, shape[1], share)
    return plan


def find_kept(model: HostModel, swapped: Collection[int]) -> dict[int, str]:
    """Return why rows before the head keep their width: they have no closed form for another one, or feed a row that has none."""
    kept: dict[int, str] = {}
    for layer in reversed(model.model[:-1]):
        reason = _why_kept(layer) if has_weights(layer) and layer.i not in swapped else ""
        if reason:
            kept[layer.i] = reason
        if reason or (layer.i in kept and (not has_weights(layer) or adds(layer))):
            why = f"row {layer.i} keeps its width" if reason else kept[layer.i]
            for index in input_indices(layer):
                kept.setdefault(index, why)
    return kept


def adds(layer: HostLayer) -> bool:
    """Return whether a row's output has the width of what enters it."""
    return type(layer) is C2PSA or bool(getattr(layer, "add", False))


def _row_width(layer: HostLayer, channels: int, share: float, plan: Mapping[int, RowWidth], reason: str) -> RowWidth:
    """Return the width of a row with a share of its channels, where those before it are planned; all of them for a reason."""
    if reason:
        return RowWidth(channels, getattr(layer, "c", None), reason)
    width = plan[input_indices(layer)[0]].channels if adds(layer) else round_width(channels, share)
    if not isinstance(layer, C2f | C2 | C2PSA):
        return RowWidth(width)
    inner = all(type(module) in (Bottleneck, C3k) for module in layer.m)
    return RowWidth(width, _hidden_width(layer, share) if inner else layer.c)


def _hidden_width(layer: HostLayer, share: float) -> int:
    """Return the width of a C2f's halves; that of a C3k2 is halved once more inside."""
    step = STEP if type(layer) is C3k2 else STEP_SMALL
    return min(layer.c, max(round_width(layer.c, share), step))


def _why_kept(layer: HostLayer) -> str:
    """Return why a row keeps its width, "" where it can be narrower."""
    if type(layer) not in NARROWED:
        return f"no closed form for the width of {layer.type.rpartition('.')[2]}"
    return "grouped" if type(layer) is Conv and layer.conv.groups > 1 else ""


def reshape_yaml(model: HostModel, config: Config, widths: Mapping[int, RowWidth], activation: str) -> Config:
    """Return the content of the model YAML with other widths and activation.

    Args:
        model: The trained model.
        config: The content of its YAML, rows of which may already have other modules.
        widths: Width of each row; empty to leave all as they are.
        activation: A key of ACTIVATIONS; "" to leave it as it is.
    """
    if activation:
        config = config | {"activation": ACTIVATIONS[activation]}
    if not widths:
        return config
    scale, scales = config.get("scale", ""), config.get("scales") or {}
    depth, width, largest = scales.get(scale) or (
        config.get("depth_multiple", 1.0),
        config.get("width_multiple", 1.0),
        math.inf,
    )
    rows = [list(row) for row in yaml_rows(config)]
    for index, row in widths.items():
        rows[index][3] = _row_arguments(rows[index][2], rows[index][3], row, (width, largest))
    if hasattr(model.model[-1], "npr"):  # prototypes, whose width the parser scales, too
        rows[-1][3] = [*rows[-1][3][:2], model.model[-1].npr]
    first = len(config["backbone"])
    widest = max([1024, *(row.channels for row in widths.values())])
    parts = {"backbone": rows[:first], "head": rows[first:]}
    fixed = {"scales": {scale: [depth, 1.0, widest]}} if scales else {"width_multiple": 1.0}
    return config | parts | fixed


def _row_arguments(name: str, arguments: list[Any], row: RowWidth, scaling: tuple[float, float]) -> list[Any]:
    """Return the arguments of a row with its channels written out, and the inner width as a share `e` of them."""
    if not arguments or not isinstance(arguments[0], int) or isinstance(arguments[0], bool) or name.startswith("nn."):
        return arguments
    known = {"C2f": C2f, "C3k2": C3k2, "C2": C2, "C2PSA": C2PSA}.get(name)
    if known is None and name not in HOSTS and row.kept and not _is_scaled(arguments[0], row.channels, scaling):
        return arguments  # its first argument is no width
    new = [row.channels, *arguments[1:]]
    if known is None or row.hidden is None:
        return new
    options = list(signature(known).parameters.values())[3:]  # after c1, c2, n
    place = [option.name for option in options].index("e")
    given = new[1 + place] if len(new) > 1 + place else options[place].default
    if int(row.channels * given) == row.hidden:
        return new
    new += [option.default for option in options[len(new) - 1 : place + 1]]
    new[1 + place] = math.ceil(row.hidden / row.channels * 10_000) / 10_000  # the host rounds down
    return new


def _is_scaled(argument: int, channels: int, scaling: tuple[float, float]) -> bool:
    """Return whether a row's first argument is the width that the scale makes these channels of."""
    width, largest = scaling
    return int(make_divisible(min(argument, largest) * width, 8)) == channels
