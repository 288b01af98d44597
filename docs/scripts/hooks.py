"""MkDocs hooks: pages kept outside `docs/`, the notebook as a page, and the generated references."""

from __future__ import annotations

import base64
import html
import json
import posixpath
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from ghost_yolo.cli import app

ROOT = Path(__file__).parents[2]
NOTEBOOK = "tutorials/first-light-detector"
SOURCES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "experiments/README.md": "results/experiments.md",
    "results/README.md": "results/index.md",
}
SCALE = re.compile(
    r"^  (?P<scale>[nslmx]): \[.*?\](?: # (?P<layers>\d+) layers \((?P<leaf>\d+) leaf\), "
    r"(?P<parameters>\d+) parameters, (?P<gflops>[\d.]+) GFLOPs)?$",
    re.MULTILINE,
)
LINK = re.compile(r"(?P<start>\]\()(?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")
INTERVAL = re.compile(r"(<td[^>]*>[+\-\d.]+x?) (\([+\-\d.]+) to ([+\-\d.]+\))")


def outside() -> dict[Path, str]:
    """Return the files that are kept elsewhere in the repository, with their addresses on the site."""
    found = {ROOT / source: uri for source, uri in SOURCES.items()}
    for kind in ("md", "json", "png"):
        for file in sorted((ROOT / "results").rglob(f"*.{kind}")):
            found.setdefault(file, file.relative_to(ROOT).as_posix())
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are kept elsewhere or generated."""
    for source, uri in outside().items():
        files.append(File.generated(config, uri, abs_src_path=str(source)))
    notebook = Path(config.docs_dir) / f"{NOTEBOOK}.ipynb"
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    files.append(File.generated(config, f"{NOTEBOOK}.md", content=notebook_page(cells)))
    for uri, image in image_files(cells).items():
        files.append(File.generated(config, uri, content=image))
    for uri, text in {"reference/yamls.md": yaml_page(), "reference/cli.md": cli_page()}.items():
        if (stub := files.get_file_from_path(uri)) is not None:  # for readers of the repository
            files.remove(stub)
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 (given by name)
    """Rewrite the links between folders of the repository as links of the site."""
    if page.file.generated_by and page.file.abs_src_path is None:
        return markdown
    folder, docs = Path(str(page.file.abs_src_path)).parent, Path(config.docs_dir).resolve()
    known = {source.resolve(): uri for source, uri in outside().items()}

    def moved(match: re.Match[str]) -> str:
        target = (folder / match["target"]).resolve()
        uri = known.get(target)
        if uri is None and target.is_file() and target.is_relative_to(docs):
            uri = target.relative_to(docs).as_posix()
        if uri is None:
            return match[0]
        if uri == f"{NOTEBOOK}.ipynb":
            uri = f"{NOTEBOOK}.md"
        relative = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
        return f"{match['start']}{relative}{match['anchor'] or ''})"

    return LINK.sub(moved, markdown)


def on_page_content(html: str, **_: object) -> str:
    """Keep a figure of a table and its interval in one line."""
    return INTERVAL.sub(r"\1&nbsp;\2&nbsp;to&nbsp;\3", html)


def images_of(cells: list[dict[str, Any]]) -> Iterator[tuple[int, str, bytes]]:
    """Yield every image that the notebook shows: the number of its cell, its file suffix and its content."""
    for number, cell in enumerate(cells):
        for output in cell.get("outputs", []):
            for mime, ending in (("image/jpeg", "jpg"), ("image/png", "png")):
                if mime in output.get("data", {}):
                    yield number, ending, base64.b64decode("".join(output["data"][mime]))


def image_files(cells: list[dict[str, Any]]) -> dict[str, bytes]:
    """Return the notebook's images by their path on the site."""
    return {f"{NOTEBOOK}-{number}.{ending}": content for number, ending, content in images_of(cells)}


def notebook_page(cells: list[dict[str, Any]]) -> str:
    """Return the notebook as Markdown: its text, its code, and what each cell printed and showed."""
    parts = []
    shown = {number: ending for number, ending, _ in images_of(cells)}
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        printed = "".join("".join(output.get("text", [])) for output in cell["outputs"]).strip()
        if printed:
            parts.append(f"```text\n{printed}\n```")
        if number in shown:
            parts.append(f"![What the cell shows]({Path(NOTEBOOK).name}-{number}.{shown[number]})")
    parts.append(f"[Download this notebook]({Path(NOTEBOOK).name}.ipynb)")
    return "\n\n".join(parts) + "\n"


def cli_page() -> str:
    """Return the reference of the command line as typer writes it, with the sentences that it cuts in the list of commands."""
    arguments = ["-m", "typer", "ghost_yolo.cli", "utils", "docs", "--name", "ghost-yolo", "--title", "Command line"]
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    text = html.unescape(done.stdout)
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        first = command.help.split("\n\n")[0]
        line = f"* [`{name}`](#ghost-yolo-{name}): {first}"
        text = re.sub(rf"(?m)^\* `{name}`: .*$", lambda _, line=line: line, text, count=1)
    return text


def yaml_page() -> str:
    """Return the reference of the packaged YAMLs, read from their own header lines."""
    folders = {
        "Models": ROOT / "cfg",
        "The published table": ROOT / "cfg" / "published",
        "Data sets": ROOT / "datasets",
    }
    parts = [
        "# Model YAMLs",
        "Every YAML that comes with the package, described by its own header.",
        "Figures are of the model as trained (not fused), 80 classes, 640 x 640. [How they are counted](metrics.md).",
    ]
    for title, folder in folders.items():
        parts.append(f"## {title}")
        parts += [section(file) for file in sorted(folder.glob("*.yaml")) if not re.match(r"yolov8[nslmx]-", file.name)]
    return "\n\n".join(parts) + "\n"


def section(file: Path) -> str:
    """Return the section of one YAML: its header's text, its figures by scale, its content."""
    text = file.read_text(encoding="utf-8")
    header = "\n".join(line[2:] for line in text.split("\nnc:")[0].splitlines() if line.startswith("# "))
    if not re.search(r"(?m)^nc:", text):
        header = "\n".join(line[2:] for line in text.splitlines() if line.startswith("# "))
    counted = [match for match in SCALE.finditer(text) if match["layers"]]
    columns = ("scale", "layers", "leaf", "parameters", "gflops")
    table = ["| scale | layers | leaf layers | parameters | GFLOPs |", "| --- | ---: | ---: | ---: | ---: |"]
    table += ["| " + " | ".join(match[name] for name in columns) + " |" for match in counted]
    content = "\n".join(f"    {line}".rstrip() for line in f"```yaml\n{text}```".splitlines())
    figures = ["\n".join(table)] if counted else []
    name = file.relative_to(ROOT).as_posix()
    return "\n\n".join([f"### {file.stem}", header, *figures, f'??? note "{name}"\n\n{content}'])
