"""The page of a bundle in a real browser: the runner's boxes, settings, cameras, and what it says of failures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from factories import SIDE, newest_only, save_sure
from test_run_parity import assert_same, model_of, photo, write_bundle
from visitor import Visitor, serve

from ghost_yolo.bundle import BundlePlan, WebPlan, web
from ghost_yolo.bundle import run as runner
from ghost_yolo.export.int8 import export_int8

COPY = "GHOST_YOLO_ORT_WEB"  # names an unpacked onnxruntime-web, for the tests in a browser
CAMERA = """() => {
  window.opened = 0;
  navigator.mediaDevices.getUserMedia = async () => {
    window.opened += 1;
    const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 48 });
    const context = canvas.getContext("2d");
    setInterval(() => {
      context.fillStyle = `hsl(${Date.now() % 360} 90% 50%)`;
      context.fillRect(0, 0, 64, 48);
    }, 50);
    return (window.stream = canvas.captureStream());
  };
}"""


@pytest.fixture(scope="module")
def real_ort() -> Path:
    """A real copy of onnxruntime-web."""
    if COPY not in os.environ:
        pytest.skip(f"no onnxruntime-web: npm pack onnxruntime-web@{web.ORT_VERSION}, unpack it, and name it in {COPY}")
    return Path(os.environ[COPY])


def write_page(folder: Path, ort: Path | None, size: tuple[int, int], *files: Path) -> Path:
    """Write the page of a model, in float32 and then INT8, beside its model.yaml, and return its folder."""
    (folder / "LICENSE").write_text("licence")
    known = json.loads((folder / "model.yaml").read_text())
    options = {"precisions": ("fp32", "int8")[: len(files)], "size": size, "web": WebPlan(ort)}
    plan = BundlePlan(folder / "best.pt", (), folder / "new", **options)
    assert [*plan.files] == [file.name for file in files]
    web.write_web(plan, folder, size, known, [])
    return folder / "web"


def boxes_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what both page and runner list: the page draws masks, and lists no outlines."""
    return [{name: value for name, value in one.items() if name != "polygons"} for one in found]


def picture(folder: Path, shape: tuple[int, int] = (301, 407)) -> Path:
    """Write a photograph that every decoder reads alike."""
    file = folder / "photograph.png"
    cv2.imwrite(str(file), photo(shape))
    return file


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter
@newest_only
@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb", "classify", "detect-end2end"])
def test_finds_what_the_runner_finds(browser, real_ort, tmp_path, image_folder, task):
    """In a real browser, within 0.05 pixels and 1e-4 of the score."""
    options = {"nms": False} if "end2end" in task else {}
    file = write_bundle(tmp_path, model_of(task, image_folder), (64, 96), **options)
    shot = picture(tmp_path)
    with serve(write_page(tmp_path, real_ort, (64, 96), file)) as address:
        (found,) = Visitor(browser, address).drop(shot)
    expected = runner.Detector(tmp_path)(cv2.imread(str(shot)))
    assert len(expected) > 2
    assert_same(found["found"], boxes_of(expected))
    assert set(found["median_ms"]) == {"letterbox", "network", "nms", "total"}
    assert found["median_ms"]["network"] > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_two_models_side_by_side(browser, real_ort, sure, tiny_model, image_folder, tmp_path, run):
    """The command writes the page; both models find what the runner finds with their files, and times stand beside."""
    stock = save_sure(tiny_model, tmp_path / "stock.pt", seed=1)
    out = tmp_path / "bundle"
    options = ["--imgsz", str(SIDE), "--rounds", "1", "--ort", real_ort, "--beside", stock]
    run("ghost-yolo", "bundle", sure, "--images", image_folder, "--to", "web", *options, "-o", out)
    listed = (out / "checksums.txt").read_text()
    assert "web/beside/model.onnx" in listed
    assert "web/ort/ort-wasm-simd-threaded.wasm" in listed
    assert "web" in (out / "README.md").read_text()
    assert json.loads((out / "proof.json").read_text())["outputs"].keys() == {"model.onnx", "web/beside/model.onnx"}
    shot = picture(tmp_path)
    with serve(out / "web") as address:
        visitor = Visitor(browser, address)
        first, second = visitor.drop(shot)
        assert visitor.page.locator(".card canvas:visible").count() == 2
        assert visitor.page.evaluate("crossOriginIsolated")  # by the service worker
    expected = runner.Detector(out)(cv2.imread(str(shot)))
    (out / "web/beside/model.yaml").write_bytes((out / "model.yaml").read_bytes())
    other = runner.Detector(out / "web/beside", "model.onnx")(cv2.imread(str(shot)))
    assert (first["model"], second["model"]) == ("sure.pt", "stock.pt")
    assert_same(first["found"], expected)
    assert_same(second["found"], other)
    assert expected != other


@pytest.fixture(scope="module")
def site(real_ort, image_folder, tmp_path_factory) -> Path:
    """The page of a small model."""
    folder = tmp_path_factory.mktemp("site")
    file = write_bundle(folder, model_of("detect", image_folder), (64, 64))
    return write_page(folder, real_ort, (64, 64), file)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_settings_change_the_engine(browser, site, tmp_path):
    """Threads give the same boxes; WebGPU, which this browser has not, falls back with a message."""
    shot = picture(tmp_path)
    with serve(site) as address:
        visitor = Visitor(browser, address)
        (one,) = visitor.drop(shot)
        visitor.page.evaluate("document.getElementById('threads').add(new Option(2, 2))")
        visitor.page.select_option("#threads >> nth=0", label="2")
        visitor.page.wait_for_function("document.getElementById('json').textContent.includes('2 threads')")
        said = json.loads(visitor.page.text_content("#json"))
        assert_same(said["models"][0]["found"], one["found"])
        visitor.page.select_option("#engine", "webgpu")
        visitor.page.wait_for_selector("#notes:visible, #error:visible")
        assert "WebAssembly is used" in visitor.page.text_content("#notes")
        assert not visitor.page.is_visible("#error")
        assert visitor.page.input_value("#engine") == "wasm"


@pytest.mark.slow
@pytest.mark.weekly
@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_webgpu_finds_the_same(launch, site, tmp_path):
    """With the adapter in software that Chromium brings; how fast WebGPU is it does not tell."""
    shot, browser = picture(tmp_path), launch("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
    try:
        with serve(site) as address:
            visitor = Visitor(browser, address)
            if not visitor.page.evaluate("navigator.gpu?.requestAdapter().then(Boolean)"):
                pytest.skip("this Chromium has no adapter in software")
            visitor.page.select_option("#engine", "webgpu")
            visitor.wait()
            (found,) = visitor.drop(shot)
            assert "WebGPU." in visitor.page.text_content("#status")
    finally:
        browser.close()
    assert_same(found["found"], boxes_of(runner.Detector(site.parent)(cv2.imread(str(shot)))))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_an_int8_file_finds_the_same(browser, real_ort, image_folder, tmp_path):
    """Its integers are added up alike in WebAssembly."""
    file = write_bundle(tmp_path, model_of("detect", image_folder), (64, 64))
    whole, shot = tmp_path / "model_int8.onnx", picture(tmp_path)
    export_int8(tmp_path / "best.pt", sorted(image_folder.iterdir()), whole, 64, "onnx", ())
    page = write_page(tmp_path, real_ort, (64, 64), file, whole)
    with serve(page) as address:
        visitor = Visitor(browser, address)
        visitor.page.select_option("#precision", "int8")
        visitor.wait()
        (found,) = visitor.drop(shot)
    assert found["file"] == whole.name
    assert_same(found["found"], boxes_of(runner.Detector(tmp_path, whole.name)(cv2.imread(str(shot)))))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_says_what_failed_and_goes_on(browser, site, tmp_path):
    """An image that cannot be read, and a camera that is not there; a good photograph works after them."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with serve(site) as address:
        visitor = Visitor(browser, address)
        assert visitor.drop(broken) == []
        assert "broken.png cannot be read" in visitor.page.text_content("#error")
        visitor.page.click("#camera")
        visitor.page.wait_for_function("document.getElementById('error').textContent.includes('no camera')")
        assert visitor.drop(picture(tmp_path))[0]["found"]
        assert not visitor.page.is_visible("#error")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_takes_a_camera_until_it_is_lost(browser, site):
    """Two quick clicks open one camera; pulled out it is an error, and it can be opened again."""
    with serve(site) as address:
        visitor = Visitor(browser, address)
        visitor.page.evaluate(CAMERA)
        for opened in (1, 2):
            visitor.page.evaluate(
                "document.getElementById('camera').click(), document.getElementById('camera').click()"
            )
            visitor.page.wait_for_function("document.getElementById('status').textContent.includes('Camera: 64 x 48')")
            assert visitor.page.evaluate("window.opened") == opened
            assert not visitor.page.is_visible("#error")
            visitor.page.evaluate("window.stream.getTracks()[0].stop()")
            visitor.page.wait_for_function("document.getElementById('error').textContent.includes('no more pictures')")
            assert visitor.page.text_content("#camera") == "Open the camera"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter
@pytest.mark.parametrize("name", ["model.onnx", "ort/ort-wasm-simd-threaded.wasm", "models.json"])
def test_names_a_file_that_is_not_the_one_listed(browser, site, tmp_path, name):
    """The page refuses a changed model or runtime, and names what is missing."""
    import shutil

    changed = Path(shutil.copytree(site, tmp_path / "changed"))
    with (changed / name).open("ab") as file:
        file.write(b"}")
    with serve(changed) as address:
        visitor = Visitor(browser, address)
        assert Path(name).name in visitor.page.text_content("#error")
        assert visitor.page.is_disabled("#choose") or name == "models.json"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter
@pytest.mark.parametrize("changed", [False, True])
def test_public_copy_is_checked(browser, real_ort, image_folder, tmp_path, changed):
    """Without a local copy the page loads the public one, here answered by the test, and refuses other content."""
    dist = web.check_runtime(real_ort)
    file = write_bundle(tmp_path, model_of("detect", image_folder), (64, 64))

    def answer(route: Any) -> None:
        name = route.request.url.removeprefix(web.PUBLIC)
        body = (dist / name).read_bytes() + (b" " if changed else b"")
        route.fulfill(body=body, headers={"access-control-allow-origin": "*", "content-type": "application/wasm"})

    with serve(write_page(tmp_path, None, (64, 64), file)) as address:
        context = browser.new_context()
        context.route(web.PUBLIC + "*", answer)
        visitor = Visitor(context, address)
        found = visitor.drop(picture(tmp_path))
        assert bool(found) is not changed
        assert visitor.page.is_visible("#error") is changed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_fits_a_phone(browser, site, tmp_path):
    """Nothing is wider than 390 pixels."""
    with serve(site) as address:
        visitor = Visitor(browser, address, viewport={"width": 390, "height": 844}, device_scale_factor=3)
        visitor.drop(picture(tmp_path))
        assert visitor.page.evaluate("document.documentElement.scrollWidth") == 390
        assert np.ptp(visitor.page.evaluate("[...document.querySelectorAll('button')].map((b) => b.clientHeight)")) < 5


TWO_QUESTIONS = """async () => {
  globalThis.Worker = class {
    terminate() {}
    postMessage({ kind, name }) {
      const kinds = kind === "open" ? [{ kind: "opened" }] : [false, true].map((last) => ({ kind: "found", last, name }));
      for (const data of kinds) setTimeout(() => this.onmessage({ data }), 5);
    }
  };
  const seen = [];
  const { Networks } = await import("/networks.js");
  const networks = new Networks(({ name }, of) => seen.push(name + of));
  await networks.open({});
  await Promise.all(["a", "b"].map((name) => networks.find({ name }, [], name)));
  return seen;
}"""


@pytest.mark.slow
def test_what_is_found_is_shown_on_its_own_photograph(browser) -> None:
    """Also where the next one was given while it was looked for."""
    with serve(web.PAGE) as address:
        page = browser.new_page()
        page.goto(f"{address}style.css")  # any page of that origin
        assert page.evaluate(TWO_QUESTIONS) == ["aa", "aa", "bb", "bb"]
        page.close()
