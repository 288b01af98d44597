"""The page of a bundle: a static folder that runs the ONNX model in a browser with onnxruntime-web."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghost_yolo.bundle.description import describe
from ghost_yolo.errors import UserError
from ghost_yolo.export.files import export_file
from ghost_yolo.model.checkpoint import OpenedModel, open_checkpoint
from ghost_yolo.utils.files import sha256

if TYPE_CHECKING:
    from ghost_yolo.bundle.plan import BundlePlan

PAGE = Path(__file__).parent / "page"
FOLDER = "web"
BESIDE = "beside"
TASKS = ("detect", "segment", "pose", "obb", "classify")  # that the page's detector.js knows
ORT_VERSION = "1.30.0"
ORT_FILES = {  # SHA-256 of the files of that npm package, dist/: the CPU's two, and those that have WebGPU
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.bundle.min.mjs": "0730816731ce2cdfb06f273da065d4a1c7091eb9d1756a83b2916c8a89d015e2",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}
PUBLIC = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{ORT_VERSION}/dist/"
PLACES = ("", "dist", "package/dist", "node_modules/onnxruntime-web/dist")  # where --ort may hold the files
BANNER = re.compile(rb"ONNX Runtime Web v(\S+)")


@dataclass(frozen=True)
class WebPlan:
    """What the page is asked for.

    Attributes:
        ort: A local copy of onnxruntime-web, to be put into the page; without it the page loads a public one.
        beside: A checkpoint whose boxes and milliseconds stand beside the model's.
    """

    ort: Path | None = None
    beside: Path | None = None

    def validate(self, checkpoint: Path, size: tuple[int, int] | None) -> None:
        """Check what can be checked before any work.

        Raises:
            UserError: If the page does not know the task, the copy of onnxruntime-web is not the known one, or the second
                model cannot stand beside the first.
        """
        if self.ort:
            check_runtime(self.ort)
        own = open_known(checkpoint)
        if self.beside is None:
            return
        if self.beside.resolve() == checkpoint.resolve():
            raise UserError(f"--beside {self.beside} is the model itself; give another one")
        opened = open_known(self.beside)
        if opened.task != own.task:
            raise UserError(f"--beside {self.beside}: its task is {opened.task}, that of {checkpoint} is {own.task}")
        opened.require_rgb()
        for side in size or (own.trained_imgsz,):
            opened.require_stride(side)


def open_known(checkpoint: Path) -> OpenedModel:
    """Open a checkpoint whose task the page knows.

    Raises:
        UserError: If the page does not know it.
    """
    opened = open_checkpoint(checkpoint)
    if opened.task not in TASKS:
        raise UserError(f"--to web: the task of {checkpoint} is {opened.task}; the page knows {', '.join(TASKS)}")
    return opened


def check_runtime(folder: Path) -> Path:
    """Return where a local copy of onnxruntime-web has its files.

    Raises:
        UserError: If it is of another version, or a file is missing or is not the one of that version.
    """
    how = f"npm pack onnxruntime-web@{ORT_VERSION}, unpacked, is the right one"
    script = next(iter(ORT_FILES))
    place = next((folder / name for name in PLACES if (folder / name / script).is_file()), None)
    if place is None:
        raise UserError(f"--ort {folder} holds no {script}; {how}")
    banner = BANNER.search((place / script).read_bytes()[:1000])
    version = banner[1].decode(errors="replace") if banner else "of no version"
    if version != ORT_VERSION:
        raise UserError(f"--ort {folder} is onnxruntime-web {version}; {how}")
    for name, digest in ORT_FILES.items():
        file = place / name
        if not file.is_file() or sha256(file) != digest:
            raise UserError(f"{file} is missing or not the file of onnxruntime-web {ORT_VERSION}; {how}")
    return place


def write_web(
    plan: BundlePlan, work: Path, size: tuple[int, int], known: dict[str, Any], images: Sequence[Path]
) -> Path | None:
    """Write the page into a bundle whose ONNX files are there.

    Args:
        plan: What the bundle is asked for.
        work: The bundle.
        size: Height and width of the network's image.
        known: The content of model.yaml.
        images: Photographs, for the second model's export.

    Returns:
        The folder of the second model, if there is one.
    """
    assert plan.web is not None
    folder = shutil.copytree(PAGE, work / FOLDER)
    shutil.copy(work / "LICENSE", folder / "LICENSE")
    names = {name: precision for name, (runtime, precision) in plan.files.items() if runtime == "onnx"}
    for name in names:
        shutil.copy(work / name, folder / name)
    titles = distinct_titles([plan.checkpoint, *([plan.web.beside] if plan.web.beside else [])])
    models = [_entry(folder, titles[0], names, known)]
    beside = folder / BESIDE if plan.web.beside else None
    if beside:
        beside.mkdir()
        export_file(plan.web.beside, beside / "model.onnx", images, size, "onnx", "fp32")  # type: ignore[arg-type]
        described = describe(beside / "model.onnx", ["model.onnx"]) | {"imgsz": list(size)}
        models.append(_entry(folder, titles[1], {f"{BESIDE}/model.onnx": "fp32"}, described))
    content = {"ort": _write_runtime(plan.web.ort, folder), "models": models}
    (folder / "models.json").write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
    return beside


def distinct_titles(checkpoints: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that differ, such as `light/weights/best.pt` and `stock/weights/best.pt`."""
    paths = [path.resolve() for path in checkpoints]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        titles = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(titles)) == len(titles):
            break
    return titles


def _entry(folder: Path, title: str, names: dict[str, str], known: dict[str, Any]) -> dict[str, Any]:
    """Return what models.json says of a model."""
    files = [
        {
            "name": name,
            "precision": precision,
            "mb": round((folder / name).stat().st_size / 1e6, 2),
            "integrity": integrity(sha256(folder / name)),
        }
        for name, precision in names.items()
    ]
    return {"title": title, "files": files, "description": known}


def _write_runtime(source: Path | None, folder: Path) -> dict[str, Any]:
    """Copy onnxruntime-web where a copy was given, and return what models.json says of it."""
    if source:
        place, target = check_runtime(source), folder / "ort"
        target.mkdir()
        for name in ORT_FILES:
            shutil.copy(place / name, target / name)
        (folder / "ort-LICENSE").replace(target / "LICENSE")
    else:
        (folder / "ort-LICENSE").unlink()
    files = {name: integrity(digest) for name, digest in ORT_FILES.items()}
    return {"version": ORT_VERSION, "base": "ort/" if source else PUBLIC, "files": files}


def integrity(digest: str) -> str:
    """Return a SHA-256 as browsers check it (subresource integrity)."""
    return "sha256-" + base64.b64encode(bytes.fromhex(digest)).decode()
