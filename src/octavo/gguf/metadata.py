"""GGUF metadata (the key/value part of the header) as a mapping with type-checking accessors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import numpy as np

from octavo.errors import WeightFormatError

Value = str | int | float | bool | np.ndarray | list[str]
Stored = str | int | float | bool | np.ndarray | list[bytes]

T = TypeVar("T")


class GGUFMetadata(Mapping[str, Value]):
    """``metadata[key]`` is a str, int, float, bool, numpy array (numbers) or list of str.

    String arrays are decoded on every access (keep the list); bytes that are not UTF-8 become U+FFFD there, because some
    vocabularies hold such pieces. The accessors return the default for a missing key and raise ``WeightFormatError`` for a
    value of another kind; the ``need_`` ones raise it for a missing key, too.
    """

    def __init__(self, values: Mapping[str, Stored], file_name: str) -> None:
        self._values = values
        self._file_name = file_name

    def __getitem__(self, key: str) -> Value:
        value = self._values[key]
        if isinstance(value, list):
            return [item.decode(errors="replace") for item in value]
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def text(self, key: str, default: str | None = None) -> str | None:
        """A string, or ``default`` if the key is missing. Another type raises ``WeightFormatError``, here and below."""
        value = self._values.get(key, default)
        if value is None or isinstance(value, str):
            return value
        raise self._wrong(key, "a string", value)

    def integer(self, key: str, default: int | None = None) -> int | None:
        """An integer, or ``default`` if the key is missing."""
        value = self._values.get(key, default)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise self._wrong(key, "an integer", value)

    def number(self, key: str, default: float | None = None) -> float | None:
        """A finite number as a float, or ``default`` if the key is missing."""
        value = self._values.get(key, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise self._wrong(key, "a finite number", value)
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """A boolean, or ``default`` if the key is missing."""
        value = self._values.get(key, default)
        if isinstance(value, bool):
            return value
        raise self._wrong(key, "true or false", value)

    def texts(self, key: str) -> list[str]:
        """Empty if missing."""
        value = self[key] if key in self._values else []
        if isinstance(value, list):
            return value
        raise self._wrong(key, "an array of strings", value)

    def numbers(self, key: str) -> np.ndarray:
        """A one-dimensional array of the file's own type; empty if missing."""
        value = self._values.get(key, np.empty(0, np.float32))
        if isinstance(value, np.ndarray):
            return value
        raise self._wrong(key, "an array of numbers", value)

    def need_text(self, key: str) -> str:
        """Like ``text``; a missing key raises ``WeightFormatError``."""
        return self._present(key, self.text(key))

    def need_integer(self, key: str) -> int:
        """Like ``integer``; a missing key raises ``WeightFormatError``."""
        return self._present(key, self.integer(key))

    def need_number(self, key: str) -> float:
        """Like ``number``; a missing key raises ``WeightFormatError``."""
        return self._present(key, self.number(key))

    def _present(self, key: str, value: T | None) -> T:
        if value is None:
            raise WeightFormatError(f"{self._file_name} lacks the metadata key {key!r}")
        return value

    def _wrong(self, key: str, expected: str, value: object) -> WeightFormatError:
        kind = "an array" if isinstance(value, list | np.ndarray) else repr(value)[:80]
        return WeightFormatError(f"{self._file_name}: metadata key {key!r} must be {expected}, not {kind}")
