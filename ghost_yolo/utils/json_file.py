"""Read a JSON file that somebody else may have written: bounded in size and depth, every value checked where it is taken."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

from ghost_yolo.errors import SourceError

MAX_BYTES = 20_000_000
MAX_DEPTH = 20
MAX_ROWS = 2000  # of one list: more cannot be drawn
MAX_TEXT = 5000  # characters of a text; a path may have 4096
MAX_NUMBER = 1e9  # no time, size, count or error is larger
SHOWN = 80  # characters of a wrong value that an error shows


def read_json(file: Path) -> Fields:
    """Return the content of a JSON file.

    Raises:
        SourceError: If it is no regular file, cannot be read, is too large or too deep, or is not JSON.
    """
    if file.exists() and not file.is_file():  # a pipe would wait for ever
        raise SourceError(f"{file} is not a regular file; give a JSON file")
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise SourceError(f"{file} has more than {MAX_BYTES} bytes")
        content = json.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, or a number of too many digits
        raise SourceError(f"{file} is not JSON: {str(error)[:SHOWN]}") from error
    _require_depth(file, content)
    return Fields(content)


def _require_depth(file: Path, content: Any) -> None:
    """Raise an error for lists and objects that are nested too deeply."""
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise SourceError(f"{file} is nested more than {MAX_DEPTH} levels deep")


class Fields:
    """An object of a JSON file, or a list of objects; each value is checked when it is taken.

    Every method raises a SourceError that names the place, such as `rows[3]: median_ms is -1, not a number from 0 to 1e+09`.
    """

    def __init__(self, content: Any, place: str = "") -> None:
        """Hold a value of any type.

        Args:
            content: The value.
            place: Where it stands in the file.
        """
        self.content, self.place = content, place

    def error(self, text: str) -> SourceError:
        """Return an error about this object."""
        return SourceError(f"{self.place}: {text}" if self.place else text)

    @property
    def is_list(self) -> bool:
        """Whether this is a list."""
        return isinstance(self.content, list)

    def __contains__(self, name: str) -> bool:
        """Return whether a key is there and its value not null."""
        return isinstance(self.content, Mapping) and self.content.get(name) is not None

    def value(self, name: str) -> Any:
        """Return a value as it stands."""
        if not isinstance(self.content, Mapping):
            raise self.error(f"{_shown(self.content)} is not an object")
        if name not in self.content:
            raise self.error(f"key {name!r} is missing")
        return self.content[name]

    def object(self, name: str) -> Fields:
        """Return an object in this one."""
        return Fields(self.value(name), f"{self.place}.{name}".lstrip("."))

    def items(self) -> Iterator[Fields]:
        """Yield the entries of this list, or this object alone."""
        entries = self.content if isinstance(self.content, list) else [self.content]
        if len(entries) > MAX_ROWS:
            raise self.error(f"it has more than {MAX_ROWS} entries")
        for number, entry in enumerate(entries):
            yield Fields(entry, f"{self.place}[{number}]" if self.is_list else self.place)

    def rows(self, name: str) -> Iterator[Fields]:
        """Yield the entries of a list of objects."""
        found = self.object(name)
        if not found.is_list:
            raise self.error(f"{name} is {_shown(found.content)}, not a list")
        return found.items()

    def text(self, name: str) -> str:
        """Return a text that can be written as UTF-8."""
        value = self.value(name)
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise self.error(f"{name} is {_shown(value)}, not text of at most {MAX_TEXT} characters")
        return value.encode("utf-8", "backslashreplace").decode()  # JSON can hold half of a character

    def count(self, name: str, low: int = 0) -> int:
        """Return a whole number that is not below `low`."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= MAX_NUMBER:
            raise self.error(f"{name} is {_shown(value)}, not a whole number from {low} to {MAX_NUMBER:g}")
        return value

    def number(self, name: str, high: float = MAX_NUMBER, low: float = 0.0) -> float:
        """Return a number within bounds, both included."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.error(f"{name} is {_shown(value)}, not a number from {low:g} to {high:g}")
        return float(value)

    def positive(self, name: str) -> float:
        """Return a number above 0."""
        value = self.number(name)
        if not value:
            raise self.error(f"{name} is {value}, not a positive number")
        return value

    def ordered(self, *names: str) -> None:
        """Check that numbers do not fall from one name to the next; those that are missing or null are left out."""
        found = [(name, self.number(name, inf, -inf)) for name in names if name in self]
        for (one, low), (other, high) in pairwise(found):
            if low > high + 1e-9 * abs(high):
                raise self.error(f"{one} is {low:g} and {other} is {high:g}")

    def positives(self, name: str) -> list[float]:
        """Return a list of numbers above 0."""
        values = self.value(name)
        if not isinstance(values, list):
            raise self.error(f"{name} is {_shown(values)}, not a list")
        entries = Fields({f"{name}[{number}]": value for number, value in enumerate(values)}, self.place)
        return [entries.positive(entry) for entry in entries.content]

    def scalars(self) -> dict[str, Any]:
        """Return the values of this object, which are texts, numbers or null."""
        if not isinstance(self.content, Mapping) or len(self.content) > MAX_ROWS:
            raise self.error(f"{_shown(self.content)} is not an object of at most {MAX_ROWS} keys")
        return {Fields({"key": name}, self.place).text("key"): self.scalar(name) for name in self.content}

    def scalar(self, name: str) -> Any:
        """Return a text, a number, a truth value or null."""
        value = self.value(name)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return value if self.number(name, 1e15, -1e15) == value else None
        return self.text(name)


def _shown(value: Any) -> str:
    """Return the beginning of a value; a whole number of thousands of digits has no text."""
    if isinstance(value, int) and abs(value) > 10**SHOWN:
        return "a number of many digits"
    return f"{value!r:.{SHOWN}}"
