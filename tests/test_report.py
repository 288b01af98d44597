"""The report: its input files, its summary, its page, and how a real browser shows it."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from factories import ACCURACY_RECORD, bench_row
from matplotlib.text import Annotation, Text
from typer.testing import CliRunner

from ghost_yolo import compare as comparison
from ghost_yolo.bench import BenchResult, BenchRow
from ghost_yolo.bench.results import group_rows
from ghost_yolo.bench.tables import render
from ghost_yolo.cli import app
from ghost_yolo.errors import SourceError, UserError
from ghost_yolo.model.catalog import labels
from ghost_yolo.report import collect as collecting
from ghost_yolo.report import figures, summary
from ghost_yolo.report.collect import ReportData, collect
from ghost_yolo.report.page import Plot, build_sections, write_page
from ghost_yolo.report.sources import read_accuracy, read_bench

MODELS = ("yolov8s.yaml", "yolov8s-ghost.yaml", "cfg/yolov8s-ghost.yaml", "yolov8n.yaml", "yolov8m.yaml", "a<b>$x$.pt")
RATIOS = {  # time, its interval, GFLOPs: by hand
    "pytorch": [(1, 1, 1, 28.6), (1.1, 1.05, 1.2, 14.3), (0.9, 0.8, 1.05, 23.0), (0.4, 0.39, 0.41, 8.7), (2.3, 2.2, 2.4, 79.0)],
    "onnx": [(1, 1, 1, 28.6), (0.75, 0.7, 0.8, 14.3), (0.95, 0.9, 0.99, 23.0), (0.4, 0.39, 0.41, 8.7), (2.3, 2.2, 2.4, 79.0)],
}  # fmt: skip


def timed_row(model: str, runtime: str, figures: tuple[float, ...] | None) -> BenchRow:
    """Return a row with a time, or a failed one."""
    scale = re.search(r"v8([nsm])", model)
    row = bench_row(model, runtime, scale=scale[1] if scale else "", error=None if figures else "it <broke>")
    if figures:
        row.ratio, row.ratio_low, row.ratio_high, row.gflops = figures
        row.median_ms, row.realised_gain = 100 * row.ratio, 1 / row.ratio / (28.6 / row.gflops)
        if runtime == "onnx" and model in MODELS[:3]:
            row.operators = {"Conv": 70.0, "Concat": 5.0} | {f"Kind{n}": 1.0 for n in range(9)}
    return row


@pytest.fixture
def timed() -> BenchResult:
    """Times of six models in two runtimes; the last one failed."""
    rows = [
        timed_row(model, runtime, figures)
        for runtime, lines in RATIOS.items()
        for model, figures in zip(MODELS, [*lines, None], strict=True)
    ]
    return BenchResult(rows, {"cpu": "some <cpu>"}, {"torch": "2"})


@pytest.fixture
def document(timed: BenchResult) -> dict[str, Any]:
    """The same as JSON."""
    return json.loads(render(timed, "json"))


@pytest.fixture(scope="module")
def profiled() -> ReportData:
    """The comparisons at scale n alone, without times."""
    return collect([], [], ["n"], 64, timing=False)


@pytest.fixture
def data(profiled: ReportData, timed: BenchResult, tmp_path: Path) -> ReportData:
    """A report with times and accuracies."""
    file = tmp_path / "accuracy.json"
    ghost = ACCURACY_RECORD | {"model": "cfg/yolov8n-ghost.yaml", "map50_95": 0.48}
    file.write_text(
        json.dumps(
            [
                ACCURACY_RECORD | {"map50_95_low": 0.45, "map50_95_high": 0.55},
                ghost,
                ghost | {"seed": 1, "map50_95": 0.46},
            ]
        )
    )
    return replace(profiled, benches={"bench.json": timed}, accuracies=read_accuracy(file))


def test_the_summary_follows_the_intervals(timed: BenchResult) -> None:
    """A model is faster or slower only if its whole interval is; only models of the first one's scale are listed."""
    pytorch, onnx = group_rows(timed.rows).values()
    (text,) = summary.summarise_times(pytorch)
    faster, slower, unclear = text.split("; ")

    assert "PyTorch fp32" in faster and "%" not in faster
    assert "yolov8s-ghost (Ultralytics) (110 %" in slower and "50 % of the GFLOPs" in slower and "0.45" in slower
    assert "cfg/yolov8s-ghost (90 %" in unclear and "yolov8n" not in text
    (text,) = summary.summarise_times(onnx)
    assert "yolov8s-ghost (Ultralytics) (75 %" in text and "cfg/yolov8s-ghost (95 %" in text and ";" not in text
    onnx[0].ratio = None
    assert summary.summarise_times(onnx) == []


def test_the_published_and_the_same_scale(profiled: ReportData) -> None:
    """The summary holds the measured figures."""
    ghost = summary.changes(profiled.scales, "gflops")["ghost"]["n"]
    entry = next(e for e in profiled.scales["n"] if e.row.model.endswith("cfg/yolov8n-ghost.yaml"))
    stock = profiled.scales["n"][0]

    assert ghost == pytest.approx((entry.row.gflops / stock.row.gflops - 1) * 100) and -25 < ghost < -10
    assert f"{ghost:+.0f} %" in summary.summarise_scales(profiled.scales)
    assert "16 of the 16" in summary.summarise_published(profiled.published)


def test_one_scale_has_one_change(profiled: ReportData) -> None:
    """With one scale the summary names one change; with two that differ, from the least saving to the largest."""
    entry = profiled.scales["n"][0]
    ghost = next(e for e in profiled.scales["n"] if summary.family(e.row.model) == "ghost")
    other = replace(ghost, change=dict.fromkeys(ghost.change, -50.0))
    change = f"{ghost.change['gflops']:+.0f} %"

    assert f"{change} (scale n)" in summary.summarise_scales({"n": [entry, ghost]})
    assert f"{change} to -50 % (scales n, s)" in summary.summarise_scales({"n": [entry, ghost], "s": [entry, other]})


def test_counted_as_compared(profiled: ReportData) -> None:
    """The quick counts are those of the comparison itself."""
    full = [
        entry for entry in comparison.compare(["cfg/yolov8n-crelu.yaml"], imgsz=64).entries if entry.row.fused == "all"
    ]
    quick = {entry.row.model: entry for entry in profiled.scales["n"]}
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
    "change,named",
    [
        (lambda d: d.pop("rows"), "'rows'"),
        (lambda d: d["rows"].clear(), "rows"),
        (lambda d: d["rows"][0].pop("ratio"), "'ratio'"),
        (lambda d: d["rows"][0].update(model=3), "model is 3"),
        (lambda d: d["rows"][0].update(rounds=1.5), "rounds is 1.5"),
        (lambda d: d["rows"][0].update(median_ms="fast"), "median_ms is 'fast'"),
        (lambda d: d["rows"][0].update(median_ms=float("nan")), "median_ms is nan"),
        (lambda d: d["rows"][0].update(operators={"Conv": -1}), "Conv is -1"),
        (lambda d: d["rows"][0].update(q25=5e6), "q25 is 5e+06"),
        (lambda d: d["rows"][0].update(ratio_low=2.0, ratio=1.0, ratio_high=3.0), "ratio_low is 2"),
        (lambda d: d["rows"][0].update(ratio_low=0.1, ratio_high=None), "ratio_high"),
        (lambda d: d["rows"][0].update(times=[1.0, -1.0]), "rows[0]: times[1] is -1.0"),
        (lambda d: d["rows"][0].update(times=3), "times is 3"),
        (lambda d: d["rows"][0].update(model="x" * 9999), "model is 'xxx"),
        (lambda d: d["rows"][0].update(imgsz=10**300), "imgsz"),
        *((lambda d, n=n: d["rows"][0].update({n: 0}), f"{n} is 0") for n in ("imgsz", "batch", "threads", "nc")),
        (lambda d: d["rows"][0].update(runtime="abacus"), "'abacus'"),
        (lambda d: d.update(rows=d["rows"][:1] * 3000), "entries"),
        (lambda d: d.update(rows={}), "rows is {}"),
        (lambda d: d.update(conditions=None), "conditions"),
        (lambda d: d.update(versions={"torch": []}), "torch is []"),
    ],
)
def test_a_foreign_bench(change: Any, named: str, document: dict[str, Any], tmp_path: Path) -> None:
    """A file that is not a benchmark result is refused; the error names the file, the value and the way to make one."""
    foreign = copy.deepcopy(document)
    change(foreign)
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(foreign))
    with pytest.raises(SourceError, match=re.escape(named)) as refused:
        read_bench(file)

    assert (
        "ghost-yolo bench" in str(refused.value) and str(file) in str(refused.value) and len(str(refused.value)) < 1000
    )


def test_accuracies_of_several_seeds(data: ReportData) -> None:
    """A point is the mean over seeds with the extremes as error bar; a single record keeps its own interval."""
    costs = next(iter(summary.accuracy_axes(data, data.accuracies).values()))
    points, ends = summary.accuracy_points(data.accuracies, costs, labels([record.model for record in data.accuracies]))

    assert [(round(point[1], 3), point[2], point[3]) for point in points] == [
        (0.5, "yolov8n", True),
        (0.47, "yolov8n-ghost", False),
    ]
    assert ends == [(0.45, 0.55), (0.46, 0.48)]


def test_the_page_has_every_part(data: ReportData, tmp_path: Path) -> None:
    """The page holds every model, failed ones with their reason; nothing in the data becomes markup or is fetched."""
    out, old = tmp_path / "report.html", tmp_path / "report-figures" / "time-ncnn-fp32.png"
    old.parent.mkdir()
    old.touch()
    (old.parent / "mine.png").touch()
    write_page(out, data)
    html = out.read_text(encoding="utf-8")
    plots = [block.name for section in build_sections(data) for block in section.blocks if isinstance(block, Plot)]

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
    assert {file.stem for file in old.parent.iterdir()} == {*plots, "mine"} and len(plots) == 8
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in old.parent.iterdir() if file.stem != "mine")


def test_without_times_or_accuracies(profiled: ReportData, tmp_path: Path) -> None:
    """A report without times has neither their section nor that of accuracies."""
    write_page(tmp_path / "r.html", profiled)
    html = (tmp_path / "r.html").read_text(encoding="utf-8")

    assert re.findall(r'<section id="(\w+)"', html) == ["summary", "published", "scales", "conditions"]


def test_the_command(
    document: dict[str, Any], profiled: ReportData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command takes several benchmark files, times nothing then, and refuses invalid options before any work."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(collecting, "compare_published", lambda: profiled.published)
    monkeypatch.setattr(collecting, "compare_deployed", lambda scale, imgsz: profiled.scales[scale])
    for name in ("a", "b"):
        Path(f"{name}.json").write_text(json.dumps(document))
    options = ["report", "--bench", "a.json", "--bench", "b.json", "--scales", "n", "--imgsz", "64", "-o", "page.html"]
    done = CliRunner().invoke(app, options)

    assert done.exit_code == 0 and "page.html" in done.stderr
    drawn = {file.name for file in Path("page-figures").glob("time-*")}
    assert drawn == {f"time-{n}-{runtime}-fp32.png" for n in (1, 2) for runtime in ("pytorch", "onnx-runtime")}

    Path("r-figures").touch()
    for more, named in {
        ("--bench", "a.json", "--no-bench"): "--no-bench",
        ("-o", "no/r.html"): "no/r.html",
        ("-o", "r.html"): "r-figures",
    }.items():
        refused = CliRunner().invoke(app, ["report", *more]).exception
        assert isinstance(refused, UserError) and named in str(refused)


@pytest.mark.parametrize("width", [390, 1200])
def test_a_real_browser_shows_it(browser: Any, data: ReportData, tmp_path: Path, width: int) -> None:
    """On a phone and on a desktop: nothing hangs over the side, every figure is drawn, nothing is fetched or reported."""
    file, requests, messages = tmp_path / "report.html", [], []
    write_page(file, data)
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


def test_a_real_browser_prints_it(browser: Any, data: ReportData, tmp_path: Path) -> None:
    """On A4 the report has a few pages."""
    file = tmp_path / "report.html"
    write_page(file, data)
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(file.as_uri())
        pdf = page.pdf(format="A4", prefer_css_page_size=True)

    assert pdf.startswith(b"%PDF") and 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 15
