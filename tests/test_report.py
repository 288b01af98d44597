"""The report: what it reads, what it says, what it writes, and how a real browser shows it."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from factories import ACCURACY_RECORD as RECORD
from matplotlib.text import Annotation, Text
from typer.testing import CliRunner

from ghost_yolo import compare as comparison
from ghost_yolo.cli import app
from ghost_yolo.errors import SourceError, UserError
from ghost_yolo.model.catalog import labels
from ghost_yolo.report import collect as collecting
from ghost_yolo.report import figures, summary
from ghost_yolo.report.collect import Found, collect
from ghost_yolo.report.page import sections_of, write_page
from ghost_yolo.report.sources import bench_of, read_accuracy, read_bench

MODELS = ("yolov8s.yaml", "yolov8s-ghost.yaml", "cfg/yolov8s-ghost.yaml", "yolov8n.yaml", "yolov8m.yaml", "a<b>$x$.pt")
RATIOS = {  # time, its interval, GFLOPs: by hand
    "pytorch": [(1, 1, 1, 28.6), (1.1, 1.05, 1.2, 14.3), (0.9, 0.8, 1.05, 23.0), (0.4, 0.39, 0.41, 8.7), (2.3, 2.2, 2.4, 79.0)],
    "onnx": [(1, 1, 1, 28.6), (0.75, 0.7, 0.8, 14.3), (0.95, 0.9, 0.99, 23.0), (0.4, 0.39, 0.41, 8.7), (2.3, 2.2, 2.4, 79.0)],
}  # fmt: skip


def row(model: str, runtime: str, figures: tuple[float, ...] | None) -> dict[str, Any]:
    """Return a row as a bench writes it; a failed one without figures."""
    ratio, low, high, gflops = figures or (None,) * 4
    found = dict.fromkeys(("median_ms", "ratio", "ratio_low", "ratio_high", "gflops", "realised_gain"))
    if ratio and gflops:
        found = {"median_ms": 100 * ratio, "ratio": ratio, "ratio_low": low, "ratio_high": high, "gflops": gflops}
        found["realised_gain"] = 1 / ratio / (28.6 / gflops)
    about = {"model": model, "runtime": runtime, "precision": "fp32", "imgsz": 640, "batch": 1, "threads": 2}
    scale = re.search(r"v8([nsm])", model)
    return (
        about
        | {"device": "cpu", "scale": scale[1] if scale else ""}
        | found
        | {"error": None if figures else "it <broke>"}
    )


@pytest.fixture
def document() -> dict[str, Any]:
    """What a bench of six models in two runtimes writes; the last failed."""
    rows = [
        row(model, kind, line)
        for kind, lines in RATIOS.items()
        for model, line in zip(MODELS, [*lines, None], strict=True)
    ]
    profile = [
        {"model": model, "runtime": "onnx", "precision": "fp32", "operator": kind, "ms": ms, "percent": 1.0}
        for model in MODELS[:3]
        for kind, ms in (("Conv", 70.0), ("Concat", 5.0), *((f"Kind{n}", 1.0) for n in range(9)))
    ]
    return {"conditions": {"cpu": "some <cpu>"}, "versions": {"torch": "2"}, "rows": rows, "profile": profile}


@pytest.fixture(scope="module")
def counted() -> Found:
    """The comparisons at scale n alone; nothing is timed."""
    return collect([], [], ["n"], 64, timing=False)


@pytest.fixture
def found(counted: Found, document: dict[str, Any], tmp_path: Path) -> Found:
    """A report with times and accuracies."""
    file = tmp_path / "accuracy.json"
    ghost = RECORD | {"model": "cfg/yolov8n-ghost.yaml", "map50_95": 0.48}
    file.write_text(
        json.dumps(
            [RECORD | {"map50_95_low": 0.45, "map50_95_high": 0.55}, ghost, ghost | {"seed": 1, "map50_95": 0.46}]
        )
    )
    return Found(counted.published, counted.scales, [bench_of(document, "bench.json")], read_accuracy(file))


def test_the_summary_is_computed(document: dict[str, Any]) -> None:
    """What is faster, slower or neither is told by the interval, at the first model's scale alone, with the gain."""
    pytorch, onnx = bench_of(document, "x").groups

    (said,) = summary.time(pytorch)

    assert said == (
        "PyTorch fp32, against yolov8s: none of its scale is faster; slower yolov8s-ghost (host's) (110 % of the time for "
        "50 % of the GFLOPs, realised gain 0.45); no clear difference cfg/yolov8s-ghost (90 % of the time for 80 % of the "
        "GFLOPs, realised gain 0.89)."
    )
    assert summary.time(onnx)[0].startswith("ONNX Runtime fp32, against yolov8s: faster yolov8s-ghost (host's) (75 %")
    assert "cfg/yolov8s-ghost (95 %" in summary.time(onnx)[0] and "slower" not in summary.time(onnx)[0]
    onnx.rows[0] = type(onnx.rows[0])(onnx.rows[0].model, "s", None, 100.0)  # the first model's ratio is unknown
    assert summary.time(onnx) == []


def test_the_published_and_the_same_scale(counted: Found) -> None:
    """The page's first sentences hold the figures that were measured."""
    ghost = summary.changes(counted.scales, "gflops")["ghost"]["n"]
    entry = next(e for e in counted.scales["n"] if e.row.model.endswith("cfg/yolov8n-ghost.yaml"))
    stock = counted.scales["n"][0]

    assert ghost == pytest.approx((entry.row.gflops / stock.row.gflops - 1) * 100) and -25 < ghost < -10
    assert f"{ghost:+.0f} %" in summary.scales(counted.scales)
    assert summary.published(counted.published).startswith("16 of the 16 figures")


def test_one_scale_has_one_change(counted: Found) -> None:
    """With one scale the summary names one change; with two that differ, from the least saving to the largest."""
    entry = counted.scales["n"][0]
    ghost = next(e for e in counted.scales["n"] if summary.family(e.row.model) == "ghost")
    other = replace(ghost, change=dict.fromkeys(ghost.change, -50.0))
    change = f"{ghost.change['gflops']:+.0f} %"

    assert f"GFLOPs by {change} (scale n);" in summary.scales({"n": [entry, ghost]})
    assert f"GFLOPs by {change} to -50 % (scales n, s);" in summary.scales({"n": [entry, ghost], "s": [entry, other]})


def test_counted_as_compared(counted: Found) -> None:
    """The quick counts are those of the comparison itself."""
    full = [
        entry for entry in comparison.compare(["cfg/yolov8n-crelu.yaml"], imgsz=64).entries if entry.row.fused == "all"
    ]
    quick = {entry.row.model: entry for entry in counted.scales["n"]}
    for entry in full:
        other = quick[entry.row.model]
        assert (entry.row.parameters, entry.row.gflops, entry.row.layers) == (
            other.row.parameters,
            other.row.gflops,
            other.row.layers,
        )


@pytest.mark.parametrize("count", [8, 25])
def test_no_label_covers_another(count: int) -> None:
    """Models of nearly one cost: no label lies on another one or leaves the plot, and every name can be read."""
    points = [(23 + n % 5 * 0.2, 100 + n // 5 * 0.5, f"yolov8s-family{n}", n == 0) for n in range(count)]
    figure = figures.scatter(points, "GFLOPs", "ms")
    figure.draw_without_rendering()
    notes = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    boxes = [Text.get_window_extent(note) for note in notes]  # an annotation's own would hold its line too
    frame = figure.axes[0].get_window_extent()
    written = " ".join(
        text.get_text() for text in [*notes, *(text for legend in figure.legends for text in legend.get_texts())]
    )

    assert len(boxes) == count and all(name in written for _, _, name, _ in points)
    assert [pair for pair in combinations(boxes, 2) if pair[0].padded(-1).overlaps(pair[1])] == []
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


@pytest.mark.parametrize(
    "change,says",
    [
        (lambda d: d.pop("rows"), "it has no 'rows'"),
        (lambda d: d["rows"].clear(), "it has no rows"),
        (lambda d: d["rows"][0].pop("ratio"), "it has no 'ratio'"),
        (lambda d: d["rows"][0].update(median_ms="fast"), "median_ms of yolov8s.yaml is 'fast'"),
        (lambda d: d["rows"][0].update(median_ms=float("nan")), "median_ms of yolov8s.yaml is nan"),
        (lambda d: d.update(conditions=None), "not iterable"),
        (lambda d: d.update(profile=[{}]), "it has no 'runtime'"),
    ],
)
def test_a_foreign_bench(change: Any, says: str, document: dict[str, Any], tmp_path: Path) -> None:
    """A file that no bench wrote is refused, with what is wrong and how to make one."""
    foreign = copy.deepcopy(document)
    change(foreign)
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(foreign))
    with pytest.raises(SourceError, match=re.escape(says)) as refused:
        read_bench(file)

    assert "--format json -o bench.json" in str(refused.value) and str(file) in str(refused.value)


def test_accuracies_of_several_seeds(found: Found) -> None:
    """A point is the mean over seeds, its whiskers the extremes; a single record's are its own interval."""
    across = next(iter(summary.axes(found, found.trained).values()))
    points, ends = summary.accuracy_points(found.trained, across, labels([record.model for record in found.trained]))

    assert [(round(point[1], 3), point[2], point[3]) for point in points] == [
        (0.5, "yolov8n", True),
        (0.47, "yolov8n-ghost", False),
    ]
    assert ends == [(0.45, 0.55), (0.46, 0.48)]


def test_the_page_has_every_part(found: Found, tmp_path: Path) -> None:
    """Every model stands in the page, failed ones with their reason; nothing in the data becomes markup or is fetched."""
    out, old = tmp_path / "report.html", tmp_path / "report-figures" / "time-ncnn-fp32.png"
    old.parent.mkdir()
    old.touch()
    (old.parent / "mine.png").touch()
    write_page(out, found)
    html = out.read_text(encoding="utf-8")
    pictures = [picture.name for section in sections_of(found) for picture in section.blocks if hasattr(picture, "alt")]

    assert re.findall(r'<section id="(\w+)"', html) == [
        "summary",
        "published",
        "scales",
        "time",
        "profile",
        "accuracy",
        "conditions",
    ]
    assert "a&lt;b&gt;$x$" in html and "it &lt;broke&gt;" in html and "some &lt;cpu&gt;" in html and "<i>" not in html
    assert not re.search(r'(src|href)="(?!data:|#)', html) and "<script" not in html
    assert {file.stem for file in old.parent.iterdir()} == {*pictures, "mine"} and len(pictures) == 8
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in old.parent.iterdir() if file.stem != "mine")


def test_without_times_or_accuracies(counted: Found, tmp_path: Path) -> None:
    """A report of counts alone says that nothing was timed."""
    write_page(tmp_path / "r.html", counted)
    html = (tmp_path / "r.html").read_text(encoding="utf-8")

    assert "No times were measured" in html and 'id="time"' not in html and 'id="accuracy"' not in html


def test_the_command(document: dict[str, Any], counted: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command takes files of times, twice over, times nothing then, and refuses what cannot be before any work."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(collecting, "compare_published", lambda: counted.published)
    monkeypatch.setattr(collecting, "deployed", lambda scale, imgsz: counted.scales[scale])
    for name in ("a", "b"):
        Path(f"{name}.json").write_text(json.dumps(document))
    asked = ["report", "--bench", "a.json", "--bench", "b.json", "--scales", "n", "--imgsz", "64", "-o", "page.html"]
    done = CliRunner().invoke(app, asked)

    assert done.exit_code == 0 and "wrote page.html and page-figures" in done.stderr
    drawn = {file.name for file in Path("page-figures").glob("time-*")}
    assert drawn == {f"time-{n}-{runtime}-fp32.png" for n in (1, 2) for runtime in ("pytorch", "onnx-runtime")}

    Path("r-figures").touch()
    for more, says in {
        ("--bench", "a.json", "--no-bench"): "leave one of the two out",
        ("-o", "no/r.html"): "there is no folder no",
        ("-o", "r.html"): "which is a file",
    }.items():
        refused = CliRunner().invoke(app, ["report", *more]).exception
        assert isinstance(refused, UserError) and says in str(refused)


@pytest.mark.parametrize("width", [390, 1200])
def test_a_real_browser_shows_it(browser: Any, found: Found, tmp_path: Path, width: int) -> None:
    """On a phone and on a desktop: nothing hangs over the side, every figure is drawn, nothing is fetched or reported."""
    file, requests, messages = tmp_path / "report.html", [], []
    write_page(file, found)
    view = {"width": width, "height": 900}
    with browser.new_context(viewport=view, device_scale_factor=2, is_mobile=width < 600) as context:
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        for event in ("console", "pageerror", "requestfailed"):
            page.on(event, lambda message: messages.append(str(message)))
        page.goto(file.as_uri())

        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0 && image.alt)")
        assert page.evaluate("Math.min(...[...document.images].map(image => image.clientWidth))") > 300
        assert [url for url in requests if not url.startswith("data:")] == [file.as_uri()]
        assert messages == []


def test_a_real_browser_prints_it(browser: Any, found: Found, tmp_path: Path) -> None:
    """On A4 the report has a few pages."""
    file = tmp_path / "report.html"
    write_page(file, found)
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(file.as_uri())
        pdf = page.pdf(format="A4", prefer_css_page_size=True)

    assert pdf.startswith(b"%PDF") and 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 15
