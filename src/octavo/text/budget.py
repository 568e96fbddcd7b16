"""Resource limits of one chat-template rendering, and the size of its values."""

from __future__ import annotations

import threading
import time
from typing import Any

from jinja2.exceptions import SecurityError

MAX_STEPS = 1_000_000  # loop iterations, calls and operators of one rendering
MAX_CHARS = 32 << 20  # characters printed or made in one rendering
MAX_VALUE = 16 << 20  # characters of one value
MAX_INT_BITS = 1 << 12
MAX_TIME_S = 5.0

_ELEMENT_CHARS = 16  # an element of a list or dict costs as much as this many characters


class BudgetError(SecurityError):
    """The template asked for more steps, characters or time than a chat prompt can need."""


class Budget(threading.local):
    """What the rendering in progress on this thread may still spend; nothing before ``start``."""

    def __init__(self) -> None:
        self._steps = 0
        self._chars = 0
        self._deadline_s = 0.0

    def start(self) -> None:
        """A rendering begins on this thread."""
        self._steps, self._chars, self._deadline_s = MAX_STEPS, MAX_CHARS, time.monotonic() + MAX_TIME_S

    def step(self) -> None:
        """Charge one step. Raises ``BudgetError`` beyond the steps or the time."""
        self._steps -= 1
        if self._steps < 0:
            raise BudgetError(f"more than {MAX_STEPS} loop iterations and calls")
        if time.monotonic() > self._deadline_s:
            raise BudgetError(f"took longer than {MAX_TIME_S:g} s")

    def spend(self, num_chars: int) -> None:
        """Charge a step that makes or reads this many characters."""
        if num_chars > MAX_VALUE:
            raise BudgetError(f"one value of {num_chars} characters (limit {MAX_VALUE})")
        self._chars -= num_chars
        if self._chars < 0:
            raise BudgetError(f"more than {MAX_CHARS} characters")
        self.step()


def size(value: Any) -> int:
    """Characters of a value, with all that it contains; counting ends soon after ``MAX_VALUE``.

    Shared parts count each time they are reached, since that is what printing or comparing the value would cost.
    """
    total, todo = 0, [value]
    while todo and total <= MAX_VALUE:
        item = todo.pop()
        if isinstance(item, str | bytes):
            total += len(item)
        elif isinstance(item, dict):
            total += len(item) * 2 * _ELEMENT_CHARS
            todo.extend(item.keys())
            todo.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            total += len(item) * _ELEMENT_CHARS
            todo.extend(item)
        elif isinstance(item, int):
            total += item.bit_length() // 3
        total += 1
    return total
