"""`ghost-yolo pretrained`: a classifier's weights in a detector's backbone, with weights made on the spot."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from factories import ROOT, Run, randomise, refused
from torch import nn
from ultralytics import YOLO

from ghost_yolo import host
from ghost_yolo.blocks.backbone import NETWORKS
from ghost_yolo.errors import WeightsError
from ghost_yolo.model import pretrained
from ghost_yolo.model.catalog import path_of
from ghost_yolo.nets import load_by_order, mobilenetv1

GHOSTNET, SQUEEZENET = str(path_of("yolov8s-ghostnet")), str(path_of("yolov8s-squeezenet"))
SOURCES = [(name, w, source) for name, entry in NETWORKS.items() for w, source in entry.weights.items()]


@pytest.mark.parametrize("network,width,source", SOURCES, ids=str)
def test_named_weights_fit(network: str, width: float, source: str) -> None:
    """Every network that the table names at a library has the tensors of ours at that width."""
    pytest.importorskip(source.partition("/")[0])
    with torch.device("meta"):
        net, theirs = NETWORKS[network].make(width=width), pretrained._library_network(source, pretrained=False)
        load_by_order(net, theirs.state_dict())


@pytest.mark.parametrize("network,width,source", SOURCES, ids=str)
def test_the_normalisation_is_the_librarys(network: str, width: float, source: str) -> None:
    """Mean and standard deviation are those that the library's weights were trained with."""
    library, _, name = source.partition("/")
    entry = NETWORKS[network]
    if library == "timm":
        config = pytest.importorskip("timm").models.get_pretrained_cfg(name)
        assert (entry.mean, entry.std) == (config.mean, config.std)
    else:
        preset = pytest.importorskip("torchvision").models.get_model_weights(name).DEFAULT.transforms()
        assert ([*entry.mean], [*entry.std]) == (preset.mean, preset.std)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_normalisation_is_folded(network: str) -> None:
    """What the first convolution gives, but at the edges, is the same of a normalised image and, folded, of the image itself."""
    torch.manual_seed(0)
    entry = NETWORKS[network]
    level = randomise(entry.make(num_classes=1).levels()[0]).eval()
    folded, found = copy.deepcopy(level), dict[str, torch.Tensor]()
    pretrained.fold_normalisation(folded, entry)
    x, (mean, std) = torch.rand(1, 3, 32, 32), (torch.tensor(v)[:, None, None] for v in (entry.mean, entry.std))
    for name, net, image in (("normalised", level, (x - mean) / std), ("folded", folded, x)):
        first, second = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))][:2]
        with torch.inference_mode():
            y = first(image)
            found[name] = (second(y) if isinstance(second, nn.BatchNorm2d) else y)[..., 2:-2, 2:-2]
    torch.testing.assert_close(found["folded"], found["normalised"], rtol=1e-4, atol=1e-4)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classifiers that take pixels in 0..1."""
    for name, entry in NETWORKS.items():
        monkeypatch.setitem(NETWORKS, name, replace(entry, mean=(0.0,) * 3, std=(1.0,) * 3))


@pytest.mark.usefixtures("plain")
def test_maps_are_timms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With timm's weights P3, P4 and P5 are timm's features, whatever the variances: the host's BN has another eps."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = randomise(timm.create_model("ghostnet_100")).eval()
    for m in theirs.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_var[::5] = 1e-4  # below the host's eps; the weight keeps the map's size
            m.weight.data[::5] *= 0.01
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    saved: list[Any] = []
    monkeypatch.setattr(host, "save", lambda model, path: saved.append(model))
    report = pretrained.initialise(GHOSTNET, tmp_path / "weights.pth", tmp_path / "init.pt")
    features: list[torch.Tensor] = []
    for last in (4, 6, 8):  # of stride 8, 16 and 32, where timm's own taps are the first
        theirs.blocks[last].register_forward_hook(lambda module, inputs, y: features.append(y))
    x = torch.rand(1, 3, 64, 96)

    with torch.inference_mode():
        theirs(x)
        y = x
        for row, expected in zip(saved[0].model[:3], features, strict=True):
            y = row(y)
            torch.testing.assert_close(y / expected.abs().max(), expected / expected.abs().max(), rtol=0, atol=1e-4)
    assert "transferred: 502 tensors" in report and "left out: 10 tensors" in report


def test_checkpoint_and_report(tmp_path: Path) -> None:
    """The checkpoint holds the classifier's tensors, whatever its classes; the table's columns add up."""
    torch.manual_seed(0)
    theirs = pytest.importorskip("torchvision").models.squeezenet1_1(num_classes=7)
    torch.save({"epoch": 3, "state_dict": theirs.state_dict()}, tmp_path / "weights.pth")
    report = pretrained.initialise(SQUEEZENET, tmp_path / "weights.pth", tmp_path / "init.pt")
    model = YOLO(tmp_path / "init.pt").model
    moved = [
        v for name, v in model.float().state_dict().items() if name.startswith(("model.0.", "model.1.", "model.2."))
    ]
    cells = [line.split() for line in report.splitlines() if line.startswith(" model.")]

    wanted = [*theirs.features.state_dict().values()]
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    wanted[1] = wanted[1] - (wanted[0] * mean / std).sum((1, 2, 3))  # of ImageNet, which torchvision's classifiers get
    wanted[0] = wanted[0] / std

    assert model.names[79] == "79" and "0.485" in report
    for tensor, expected in zip(moved, wanted, strict=True):
        torch.testing.assert_close(tensor, expected.half().float(), rtol=1e-3, atol=1e-5)
    assert [cell[0] for cell in cells[:4]] == ["model.0.*", "model.1.*", "model.2.*", "model.3.*"]
    assert sum(int(cell[2]) for cell in cells) == len(moved)
    assert sum(int(cell[5]) for cell in cells) == sum(p.numel() for p in model.parameters())
    assert f"transferred: {len(moved)} tensors, {sum(v.numel() for v in moved)} parameters" in report


def test_safetensors(tmp_path: Path) -> None:
    """A safetensors file, which sorts its tensors, is put in the order of timm's network."""
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("mobilenetv1_100").state_dict()
    pytest.importorskip("safetensors.torch").save_file(theirs, tmp_path / "weights.safetensors")
    tensors = pretrained.read(tmp_path / "weights.safetensors", "timm/mobilenetv1_100")

    assert list(tensors) == list(theirs) != sorted(theirs)
    load_by_order(mobilenetv1(), tensors)
    with refused(WeightsError, "weights.safetensors", "timm/ghostnet_100"):
        pretrained.read(tmp_path / "weights.safetensors", "timm/ghostnet_100")
    with refused(WeightsError, "weights.safetensors", ".pth"):
        pretrained.read(tmp_path / "weights.safetensors", "")


@pytest.mark.parametrize(
    "name,content,names",
    [
        (SQUEEZENET, None, ["weights.pth"]),
        (SQUEEZENET, b"no weights", ["weights.pth"]),
        (SQUEEZENET, {"epoch": 3}, ["weights.pth"]),
        (SQUEEZENET, mobilenetv1(3, 0.25).state_dict(), ["squeezenet.yaml", "rows 0, 1, 2", "squeezenet1_1"]),
        (str(path_of("yolov8s-ghost")), {}, ["ghost_yolo.Backbone", "yolov8s-ghostnet", "yolov8s-xception"]),
    ],
    ids=["missing", "text", "no tensors", "another network", "no network"],
)
def test_weights_that_do_not_fit(name: str, content: Any, names: list[str], tmp_path: Path) -> None:
    """A missing, foreign or other network's file is refused with the row and what would be right; nothing is written."""
    file = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)

    with refused(WeightsError, *names):
        pretrained.initialise(name, file, tmp_path / "init.pt")
    assert not (tmp_path / "init.pt").exists()


def test_weights_that_nobody_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file: networks that no library has, no connection, and no timm are told apart, each with a way out."""
    with refused(WeightsError, "rows 0, 1, 2", "ghostnet", "width 0.5", "--weights"):
        pretrained.initialise(str(path_of("yolov8n-ghostnet")), None, tmp_path / "init.pt")
    timm = pytest.importorskip("timm")

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(timm, "create_model", offline)
    with refused(WeightsError, "timm/ghostnet_100", "no route", "--weights"):
        pretrained.fetch("timm/ghostnet_100")
    monkeypatch.setitem(sys.modules, "timm", None)
    with refused(WeightsError, "timm/ghostnet_100", "pip install"):
        pretrained.fetch("timm/ghostnet_100")


def test_rows_of_two_networks(tmp_path: Path) -> None:
    """One weight file cannot serve two networks in one model."""
    text = (ROOT / "cfg/yolov8-ghostnet.yaml").read_text().replace("ghostnet, 5", "ghostnetv2, 5")
    (tmp_path / "yolov8n-mixed.yaml").write_text(text)

    with refused(WeightsError, "ghostnet at width 0.5", "ghostnetv2 at width 0.5"):
        pretrained.initialise(str(tmp_path / "yolov8n-mixed.yaml"), None, tmp_path / "init.pt")


@pytest.mark.slow
def test_training_starts_from_it(tmp_path: Path, run: Run) -> None:
    """`ghost-yolo pretrained`, then `yolo train model=init.pt` takes over every tensor, under restricted loading too."""
    from ghost_yolo.data import smear

    torch.manual_seed(0)
    torch.save(NETWORKS["ghostnet"].make(5).state_dict(), tmp_path / "weights.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smear, "SPLITS", {"train": 4, "val": 2})
        smear.prepare(tmp_path / "smear")
    data = {
        "path": str(tmp_path / "smear"),
        "train": "images/train",
        "val": "images/val",
        "names": list(map(str, range(80))),
    }
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(data))
    made = run("ghost-yolo", "pretrained", "--model", GHOSTNET, "--weights", "weights.pth", "-o", "init.pt")
    arguments = (
        "epochs=1",
        "imgsz=64",
        "batch=4",
        "workers=0",
        "plots=False",
        "device=cpu",
        f"project={tmp_path / 'runs'}",
    )
    done = run("yolo", "train", "model=init.pt", "data=data.yaml", *arguments, ULTRALYTICS_SAFE_LOAD="1")
    counts = next(line for line in done.stdout.splitlines() if "Transferred" in line).split()[1].split("/")

    assert "model=init.pt" in made.stdout
    assert counts[0] == counts[1]
    assert list((tmp_path / "runs").rglob("best.pt"))


def test_weights_of_any_size(tmp_path: Path) -> None:
    """A file of one value that stands for a thousand million is refused before any memory is taken."""
    pytest.importorskip("timm")
    torch.save({"classifier.bias": torch.zeros(1).expand(10**9)}, tmp_path / "weights.pth")
    with refused(WeightsError, "weights.pth", 10**9):
        pretrained.initialise(SQUEEZENET, tmp_path / "weights.pth", tmp_path / "init.pt")
