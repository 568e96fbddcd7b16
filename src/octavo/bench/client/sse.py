"""Parser for server-sent events: the same events wherever the stream is cut.

WHATWG HTML, section 9.2.6: lines end in LF, CR or CRLF; a line ``data: x`` adds x to the event's data, several are joined by
LF; a line that begins with a colon is a comment; a blank line ends the event; one without data is none; what the
end of the stream leaves unfinished is dropped. Fields other than ``data`` say nothing that OpenAI's API uses.
"""

from __future__ import annotations

from octavo.errors import BenchError

MAX_EVENT_BYTES = 16 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class MalformedStreamError(BenchError):
    """The server's response is not what it should be."""


class SseParser:
    """``feed`` bytes as they come; it returns the data of each event that they complete."""

    __slots__ = ("_begun", "_data", "_data_bytes", "_pending", "_skip_line_feed")

    def __init__(self) -> None:
        self._pending = b""  # a line without its end
        self._data: list[bytes] = []  # lines of the event that has not ended
        self._data_bytes = 0
        self._skip_line_feed = False  # the last piece ended in CR: an LF next belongs to it
        self._begun = False

    @property
    def unfinished(self) -> bool:
        return bool(self._pending or self._data)

    def feed(self, piece: bytes) -> list[bytes]:
        """Raises ``MalformedStreamError`` for an event without an end."""
        if not self._pending and not self._data and piece.startswith(b"data: ") and piece.endswith(b"\n\n"):
            # What nearly every server sends: whole events of one line each. Anything else in it has other line breaks.
            events = piece[6:-2].split(b"\n\ndata: ")
            if piece.count(b"\n") == 2 * len(events) and b"\r" not in piece:
                self._begun, self._skip_line_feed = True, False
                return events
        return self._feed_lines(piece)

    def _feed_lines(self, piece: bytes) -> list[bytes]:
        if self._skip_line_feed and piece:
            self._skip_line_feed = False
            piece = piece.removeprefix(b"\n")
        if not piece:
            return []
        text = self._pending + piece
        if not self._begun:
            if BYTE_ORDER_MARK.startswith(text):  # not all of it here yet
                self._pending = text
                return []
            self._begun = True
            text = text.removeprefix(BYTE_ORDER_MARK)
        lines = text.splitlines(keepends=True)
        self._pending = b"" if text.endswith((b"\n", b"\r")) else lines.pop() if lines else b""
        self._skip_line_feed = text.endswith(b"\r")
        events: list[bytes] = []
        for line in lines:
            self._line(line.rstrip(b"\r\n"), events)
        if len(self._pending) + self._data_bytes > MAX_EVENT_BYTES:
            raise MalformedStreamError(f"an event larger than {MAX_EVENT_BYTES} bytes without an end")
        return events

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            if self._data:
                events.append(b"\n".join(self._data))
                self._data, self._data_bytes = [], 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_bytes += len(value)
