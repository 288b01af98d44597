"""The README's results, and those of converted models in the documents, are the kept ones."""

from __future__ import annotations

import json
import re
from itertools import product
from typing import Any

from test_docs import DOCS, README, RESULTS, table_in

SHARE = r"\d\.\d{3} \(\d\.\d{3} to \d\.\d{3}\)"
CHANGED = ("prune", "ghostify-narrow")  # what takes minutes to make
DEPLOYED = {
    "stock `yolov8s`, as trained": ("stock", "s", "onnx-fp32"),
    "stock `yolov8s`": ("stock", "s", "openvino-int8"),
    "stock `yolov8n`": ("stock", "n", "openvino-int8"),
    "`yolo11n`": ("yolo11", "n", "openvino-int8"),
    "`yolov8s`, pruned by Torch-Pruning": ("prune", "s", "openvino-int8"),
    "**`yolov8s`, `ghostify --act relu --width 0.5,0.625`**": ("ghostify-narrow", "s", "openvino-int8"),
}


def deployed_rows(name: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the rows of a kept table of exported files on test, by model, scale and deployment."""
    table = json.loads((RESULTS / name / "table.json").read_text(encoding="utf-8"))
    assert table["split"] == "test"
    return {(row["key"], row["scale"], row["deployment"]): row for row in table["rows"]}


def faster(row: dict[str, Any]) -> str:
    """Return how many times as fast as the baseline a file is, with its interval."""
    if not row["time_interval"]:
        return "1.00x"
    return "{:.2f}x ({:.2f} to {:.2f})".format(*(1 / it for it in (row["time_ratio"], *reversed(row["time_interval"]))))


def test_readme_results() -> None:
    """The README's accuracies and times of deployed files, with their intervals, are those of the kept tables."""
    sets = [deployed_rows("deployed-bccd"), deployed_rows("deployed-neu-det")]
    expected = []
    for label, key in DEPLOYED.items():
        rows = [rows[key] for rows in sets]
        figures = [text for row in rows for text in (faster(row), "{:.3f} ({:.3f} to {:.3f})".format(*row["score"]))]
        minutes = " and ".join(f"{row['seconds'] / 60:.0f}" for row in rows)
        since = f"{minutes} min, {'with' if rows[0]['labels'] else 'without'} labels" if key[0] in CHANGED else ""
        expected.append([label, key[2].partition("-")[2].upper().replace("FP32", "fp32"), *figures, since])
    assert table_in(README, "results")[1:] == expected
    text = " ".join(README.read_text(encoding="utf-8").split())
    for rows, key in product(sets, ("stock-tune", "ghostify-narrow-tuned", "prune-long")):
        row = rows[key, "s", "openvino-int8"]
        minutes = "" if key == "stock-tune" else f", in {row['seconds'] / 60:.0f} minutes"
        assert "{:.3f} ({:.3f} to {:.3f}) at ".format(*row["score"]) + faster(row) + minutes in text


def shares_of_test(record: str) -> list[str]:
    """Return the shares of test mAP50-95 of the INT8 files of a record: of `relu`, `narrow` and `narrower`, where there is one."""
    rows = json.loads((RESULTS / "tenfold" / f"test-{record}.json").read_text(encoding="utf-8"))["rows"]
    shares = {row["model"]: "{:.3f} ({:.3f} to {:.3f})".format(*row["accuracy_ratio"]) for row in rows}
    names = [f"{name}_int8_openvino_model" for name in ("relu", "narrow", "narrower")]
    return [shares[name] for name in names if name in shares]


def test_shares_of_converted_models() -> None:
    """README, tutorial and results give the kept shares, in the order of their rows."""
    small, nano, steel = (shares_of_test(record) for record in ("bccd-s", "bccd-n", "neu-det-n"))
    rows = deployed_rows("deployed-bccd-xeon")
    again = [rows[name, "s", "openvino-int8"]["ratio"] for name in ("ghostify-narrow", "ghostify-narrower")]
    again.append(deployed_rows("deployed-bccd")["ghostify-narrow", "s", "openvino-int8"]["ratio"])
    *later, last = ["{:.3f} ({:.3f} to {:.3f})".format(*ratio) for ratio in again]
    shown = {
        (README, "**Faster without labels.**", "A widely copied"): [small[2], small[1], steel[1]],
        (DOCS / "tutorials/make-your-model-fast.md", "## 3.", "## 4."): [*small, *later, *nano[:2], *steel, last],
        (RESULTS / "tenfold.md", "## The test split, read once", "All figures:"): [*small, *nano, *steel],
    }
    for (file, start, end), expected in shown.items():
        part = file.read_text(encoding="utf-8").split(start)[1].split(end)[0]
        found = [re.search(SHARE, line) for line in part.split("|\n")] if file != README else re.finditer(SHARE, part)
        assert [row.group() for row in found if row] == expected, file
