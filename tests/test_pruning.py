"""The rival that Torch-Pruning makes: what it computes, its steps, and fine-tuning by Ultralytics' own trainer."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import GHOST, TINY, Run, interrupt, light, refused, stock
from torch import nn
from ultralytics.nn.modules import C2f

from experiments import making, pruned, pruning, training
from ghost_yolo import host
from ghost_yolo.errors import UserError
from ghost_yolo.model.checkpoint import open_checkpoint
from ghost_yolo.model.profile import count_gflops

pytest.importorskip("torch_pruning", reason="Torch-Pruning is not installed: pip install -e '.[experiments]'")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the small detector with four times as many channels, so that many multiples of eight are below them."""
    config = copy.deepcopy(TINY)
    for row in [*config["backbone"], *config["head"][:-1]]:
        row[3][0] *= 4
    model = host.build(config)
    model.names = dict(enumerate("abc"))
    file = tmp_path_factory.mktemp("wide") / "wide.pt"
    host.save(model, file, {"imgsz": 64, "task": "detect"})
    return file


def gflops(model: Any) -> float:
    """Count a copy."""
    return count_gflops(copy.deepcopy(model), 64)


def widths(model: Any) -> list[int]:
    """Return the output channels of every convolution outside the head."""
    return [
        module.out_channels for layer in model.model[:-1] for module in layer.modules() if isinstance(module, nn.Conv2d)
    ]


def test_channels_are_pruned(tiny_model: Any) -> None:
    """Without a share to prune the model computes the same; with one it has fewer channels in Ultralytics' own layers."""
    x = torch.rand(1, 3, 64, 64)
    whole, half = (pruning.prune_channels(tiny_model, ratio) for ratio in (0.0, 0.5))

    assert torch.equal(whole(x)[0], tiny_model(x)[0]) and widths(whole) == widths(tiny_model)
    assert [half.model[row].conv.out_channels for row in (0, 2)] == [8, 16]
    assert [layer.c for layer in half.model if isinstance(layer, C2f)] == [8, 8, 8]
    assert {type(module) for module in half.modules()} == {type(module) for module in tiny_model.modules()}
    assert all(layer.cv1.conv.out_channels == 2 * layer.c for layer in half.model if isinstance(layer, C2f))
    assert half(x)[0].shape == tiny_model(x)[0].shape and not torch.equal(half(x)[0], tiny_model(x)[0])
    assert [conv[-1].weight.shape for conv in half.model[-1].cv3] == [
        conv[-1].weight.shape for conv in tiny_model.model[-1].cv3
    ]


def test_pruning_to_a_share(wide: Path) -> None:
    """The GFLOPs are at most those asked for, with more channels than for fewer; the head's own cannot be undercut."""
    model = host.load(wide)
    limit = 0.85 * gflops(model)
    some, fewer = (pruning.prune_to(model, share * gflops(model), 64) for share in (0.85, 0.7))

    assert 0.8 * limit < gflops(some) <= limit and sum(widths(fewer)) < sum(widths(some))
    with refused(UserError, "head"):
        pruning.prune_to(model, 0.001 * limit, 64)


def test_what_cannot_be_pruned(tiny_model: Any, monkeypatch: pytest.MonkeyPatch, best: Path, tmp_path: Path) -> None:
    """Another model, a missing package and arguments out of range are named."""
    with refused(UserError, GHOST):
        pruning.prune_channels(host.build(light(stock("v8/yolov8"), "backbone")), 0.5)
    for share, steps, settings in ((1.2, 1, ["imgsz=64"]), (0.5, 0, ["imgsz=64"]), (0.5, 1, ["epochs=1"])):
        with refused(UserError, f"--gflops {share}", f"--steps {steps}", settings[0]):
            pruned.run(best, share, steps, tmp_path / "out.pt", settings)
    trainer = pruned.PrunedTrainer.__new__(pruned.PrunedTrainer)
    trainer.data = {"nc": 80, "names": {0: "person"}}
    with refused(UserError, "person"):
        trainer.get_model(weights=tiny_model)
    with refused(UserError, ".pt"):
        trainer.get_model("yolov8n.yaml")
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with refused(UserError, "pip install"):
        pruning.prune_channels(tiny_model, 0.5)


def test_steps_are_resumed(best: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each step prunes what the one before fine-tuned; an interrupted run goes on, one of other settings or a finished one starts anew."""
    limits, tuned, out, settings = list[float](), list[str](), tmp_path / "run/best.pt", ["imgsz=64", "epochs=1"]

    def prune(model: Path, limit: float, imgsz: int, file: Path) -> None:
        limits.append(limit)
        file.write_bytes(model.read_bytes() + b"p")

    def fine_tune(*arguments: str, mixed_precision: bool) -> None:
        assert mixed_precision
        tuned.append(arguments[1])
        model = Path(arguments[1].partition("=")[2])
        folder = model.parent / "train/weights"
        folder.mkdir(parents=True)
        (folder.parent / "results.csv").write_text("epoch,time\n1,5\n")
        if len(tuned) == 2:
            raise KeyboardInterrupt
        (folder / "best.pt").write_bytes(model.read_bytes() + b"t")
        torch.save({"epoch": -1}, folder / "last.pt")  # as after a training that ended

    monkeypatch.setattr(pruned, "prune_checkpoint", prune)
    monkeypatch.setattr(pruned, "fine_tune", fine_tune)
    with pytest.raises(KeyboardInterrupt):
        pruned.run(best, 0.25, 2, out, settings, mixed_precision=True)
    (out.parent / "best-steps/step-2/train/weights").rmdir()
    (out.parent / "best-steps/step-2/train/results.csv").unlink()
    (out.parent / "best-steps/step-2/train").rmdir()
    pruned.run(best, 0.25, 2, out, settings, mixed_precision=True)

    assert limits == pytest.approx([0.5 * gflops(host.load(best)), 0.25 * gflops(host.load(best))])
    assert [Path(model).parent.name for model in tuned] == ["step-1", "step-2", "step-2"]
    assert out.read_bytes() == best.read_bytes() + b"ptpt"
    assert making.pruning_seconds(out.parent) == pytest.approx(10, abs=1)
    (out.parent / "best-steps/step-1" / making.PRUNED).unlink()
    assert making.pruning_seconds(out.parent) is None
    pruned.run(best, 0.25, 1, out, settings, mixed_precision=True)
    assert out.read_bytes() == best.read_bytes() + b"pt" and not (out.parent / "best-steps/step-2").exists()


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], pytest.param(["--mixed-precision"], marks=pytest.mark.weekly)])
@pytest.mark.filterwarnings("default")  # of the host's training
def test_pruned_model_is_fine_tuned_and_opened_safely(
    wide: Path, labelled: Path, tmp_path: Path, run: Run, python: Run, options: list[str]
) -> None:
    """The command's output keeps its channels through both steps, and val and export load it, safely."""
    out = tmp_path / "run/best.pt"
    settings = [f"data={labelled}", "imgsz=64", "epochs=1", "batch=4", "workers=0", "device=cpu"]
    done = run(
        "python",
        "-m",
        "experiments",
        "prune",
        wide,
        *options,
        "-o",
        out,
        "--gflops",
        "0.7",
        "--steps",
        "2",
        *settings,
    )
    steps = [tmp_path / f"run/best-steps/step-{number}/{name}.pt" for number in (1, 2) for name in ("pruned", "best")]
    models = [open_checkpoint(file).model for file in [wide, *steps, out]]
    costs = [gflops(model) for model in models]

    assert costs[0] > costs[1] == costs[2] > costs[3] == costs[4] == costs[5] <= 0.7 * costs[0]
    assert "setting 'requires_grad=True'" not in done.stdout + done.stderr
    assert not torch.equal(models[3].model[0].conv.weight, models[4].model[0].conv.weight)
    options = f"data={str(labelled)!r}, imgsz=64, workers=0, plots=False, device='cpu'"
    code = f"from ultralytics import YOLO; m = YOLO({str(out)!r}); m.val({options}); m.export(format='onnx', imgsz=64)"
    python(code, ULTRALYTICS_SAFE_LOAD="1")
    assert out.with_suffix(".onnx").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the host's training
def test_interrupted_fine_tuning_is_resumed(
    wide: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C the fine-tuning of a pruned model goes on from its last epoch, with the pruned channels."""
    out, model = tmp_path / "best.pt", pruning.prune_channels(host.load(wide), 0.5)
    host.save(model, tmp_path / "pruned.pt", {"imgsz": 64, "task": "detect"})
    settings = [f"data={labelled}", "imgsz=64", "epochs=2", "batch=4", "workers=0", "device=cpu"]
    arguments = [f"model={tmp_path / 'pruned.pt'}", *settings]
    save = pruned.PrunedTrainer.save_model
    monkeypatch.setattr(pruned.PrunedTrainer, "save_model", lambda self: interrupt(save(self)))
    with pytest.raises(KeyboardInterrupt):
        training.train(out, arguments, pruned.fine_tune)
    monkeypatch.undo()
    training.train(out, arguments, pruned.fine_tune)
    rows = (tmp_path / "train/results.csv").read_text().splitlines()[1:]

    assert [row.split(",")[0].strip() for row in rows] == ["1", "2"]
    assert widths(host.load(out)) == widths(model) and max(widths(model)) < max(widths(host.load(wide)))
