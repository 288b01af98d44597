"""Somebody who opens the page of a bundle in a real browser and drops photographs on it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

DROP = """([name, kind, text]) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type: kind }));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
}"""


class Quiet(SimpleHTTPRequestHandler):
    """A plain static server that prints nothing."""

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


class Visitor:
    """A page in the browser, and what one does with it."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        """Open the page and wait until it is ready, or says what failed."""
        self.page = browser.new_page(**options)
        self.page.set_default_timeout(120_000)
        self.page.goto(address)
        self.wait()

    def wait(self) -> None:
        """Wait until the page is ready, or says what failed."""
        self.page.wait_for_selector("#choose:enabled, #error:visible")

    def drop(self, file: Path) -> list[dict[str, Any]]:
        """Drop a photograph, and return what the models found."""
        text = base64.b64encode(file.read_bytes()).decode()
        self.page.evaluate(DROP, [file.name, f"image/{file.suffix[1:]}", text])
        self.page.wait_for_selector("#json-part:visible, #error:visible")
        if self.page.is_visible("#error"):
            return []
        said = json.loads(self.page.text_content("#json"))
        assert said["image"] == file.name
        return said["models"]
