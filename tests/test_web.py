"""The page of bundles: what the command writes and refuses; tests/test_web_browser.py opens it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from factories import refused

from ghost_yolo import host
from ghost_yolo.bundle import BundlePlan, WebPlan, web
from ghost_yolo.cli.bundle import parse_targets
from ghost_yolo.errors import UserError


@pytest.fixture
def copy_of_ort(tmp_path, monkeypatch) -> Path:
    """Four small files that stand for onnxruntime-web's, as npm unpacks them."""
    dist = tmp_path / "ort/package/dist"
    dist.mkdir(parents=True)
    known = {}
    for name in web.ORT_FILES:
        (dist / name).write_bytes(f"/*! ONNX Runtime Web v{web.ORT_VERSION} {name} */".encode())
        known[name] = hashlib.sha256((dist / name).read_bytes()).hexdigest()
    monkeypatch.setattr(web, "ORT_FILES", known)
    return tmp_path / "ort"


@pytest.mark.parametrize("inside", ["", "package", "package/dist"])
def test_finds_the_runtime_where_npm_puts_it(copy_of_ort, inside):
    """In the unpacked package, above it, and in its dist/."""
    assert (web.check_runtime(copy_of_ort / inside) / "ort-wasm-simd-threaded.wasm").is_file()


def test_refuses_another_runtime(copy_of_ort, tmp_path):
    """Another version, a changed file, a missing one, and a folder without any."""
    dist = copy_of_ort / "package/dist"
    script, binary, *_ = web.ORT_FILES
    with refused(UserError, "--ort", tmp_path, script, f"onnxruntime-web@{web.ORT_VERSION}"):
        web.check_runtime(tmp_path)
    (dist / binary).write_bytes(b"something else")
    with refused(UserError, binary, web.ORT_VERSION):
        web.check_runtime(copy_of_ort)
    (dist / binary).unlink()
    with refused(UserError, binary):
        web.check_runtime(copy_of_ort)
    (dist / script).write_bytes(b"/*! ONNX Runtime Web v1.2.3 */")
    with refused(UserError, "1.2.3", f"onnxruntime-web@{web.ORT_VERSION}"):
        web.check_runtime(copy_of_ort)


def test_refuses_a_model_that_cannot_stand_beside(best, tiny_model, tmp_path, monkeypatch):
    """The model itself, and one of another task; and a task that the page does not know."""
    with refused(UserError, "--beside", best):
        WebPlan(beside=best).validate(best, None)
    other = tmp_path / "other.pt"
    host.save(tiny_model, other, {"imgsz": 64})
    with refused(UserError, other, "33", "stride"):
        WebPlan(beside=other).validate(best, (64, 33))
    host.save(tiny_model, tmp_path / "odd.pt", {"imgsz": 33})
    with refused(UserError, other, "33", "stride"):  # where no size is given it is the first model's own
        WebPlan(beside=other).validate(tmp_path / "odd.pt", None)
    tasks = iter(["detect", "pose", "depth"])
    monkeypatch.setattr(host, "task_of", lambda _: next(tasks))
    with refused(UserError, "detect", "pose", other):
        WebPlan(beside=other).validate(best, None)
    with refused(UserError, "depth", "classify"):
        WebPlan().validate(best, None)


def test_a_page_takes_the_files_of_onnx(best):
    """`web` adds them where they are not asked for; from Python they must be."""
    assert parse_targets("web") == (("onnx",), True)
    assert parse_targets("openvino,web") == (("openvino", "onnx"), True)
    assert parse_targets("web,onnx,ncnn") == (("onnx", "ncnn"), True)
    assert parse_targets("onnx,ncnn") == (("onnx", "ncnn"), False)
    with refused(UserError, "--to", "onnx"):
        BundlePlan(best, (), best.parent / "new", runtimes=("ncnn",), web=WebPlan()).validate()


def test_options_of_the_page_are_refused_without_it(best, tmp_path, run):
    """They would do nothing."""
    done = run("ghost-yolo", "bundle", best, "--images", tmp_path, "--ort", tmp_path, "-o", tmp_path / "new", ok=False)
    assert "--ort is for the page" in done.stderr


@pytest.fixture
def plan(best, copy_of_ort, tmp_path) -> BundlePlan:
    """A plan with a page, and beside it a folder `work` with stand-ins for what the bundle has by then."""
    work = tmp_path / "work"
    work.mkdir()
    for name in ("model.onnx", "model_int8.onnx", "LICENSE"):
        (work / name).write_text(name)
    return BundlePlan(best, (), tmp_path / "new", precisions=("fp32", "int8"), web=WebPlan(copy_of_ort))


def test_the_page_is_complete(plan, tmp_path):
    """Every file that is referred to is there, and is what models.json says of it."""
    known = {"task": "detect", "names": {"0": "cell"}, "imgsz": [64, 64]}
    web.write_web(plan, tmp_path / "work", (64, 64), known, [])
    folder = tmp_path / "work/web"
    said = json.loads((folder / "models.json").read_text())
    (model,) = said["models"]
    assert model["description"] == known
    assert [(file["name"], file["precision"]) for file in model["files"]] == [
        ("model.onnx", "fp32"),
        ("model_int8.onnx", "int8"),
    ]
    named = {file["name"]: file["integrity"] for file in model["files"]}
    named |= {said["ort"]["base"] + name: value for name, value in said["ort"]["files"].items()}
    assert len(named) == 6
    for name, value in named.items():
        digest = hashlib.sha256((folder / name).read_bytes()).digest()
        assert value == "sha256-" + base64.b64encode(digest).decode()
    referred = set(re.findall(r'(?:src|href)="([\w.]+)"', (folder / "index.html").read_text()))
    for file in folder.glob("*.js"):
        referred |= set(re.findall(r'(?:from |Worker\(|register\()"(?:\./)?([\w.]+)"', file.read_text()))
    assert {"page.js", "worker.js", "sw.js", "nms.js", "style.css", "LICENSE"} <= referred
    assert not [name for name in referred if not (folder / name).is_file()]
    assert "Microsoft" in (folder / "ort/LICENSE").read_text()


def test_without_a_copy_a_public_one_is_named(plan, tmp_path):
    """Of the pinned version, with the hashes that browsers check; nothing of it is in the folder."""
    web.write_web(replace(plan, web=WebPlan()), tmp_path / "work", (64, 64), {}, [])
    said = json.loads((tmp_path / "work/web/models.json").read_text())["ort"]
    assert said["base"].startswith("https://")
    assert f"onnxruntime-web@{web.ORT_VERSION}/" in said["base"]
    assert set(said["files"]) == set(web.ORT_FILES)
    assert not [path for path in (tmp_path / "work/web").iterdir() if path.name.startswith("ort")]


def test_titles_differ():
    """Two checkpoints of one name are told apart by their folders."""
    assert web.distinct_titles([Path("a/light.pt"), Path("a/stock.pt")]) == ["light.pt", "stock.pt"]
    assert web.distinct_titles([Path("a/w/best.pt"), Path("b/w/best.pt")]) == ["a/w/best.pt", "b/w/best.pt"]


# ---- In a browser ---------------------------------------------------------------------------------------------------
