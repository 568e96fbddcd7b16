"""IPC messages between server and engine process: msgpack in length-prefixed frames.

A frame is a 4-byte big-endian length and a msgpack body of at most ``MAX_FRAME_BYTES``. Nothing is pickled; every body is
validated against its type when it is read. Order is kept in both directions, which the life of a request relies on:

    server -> engine   Start, then Submit* / Abort* in any order, at last Shutdown
    engine -> server   EngineReady or Failed, then Report after every step, Refused for a Submit that it does not take, Failed
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from octavo import errors
from octavo.config import EngineConfig
from octavo.errors import EngineError, InvalidRequestError, OctavoError, OverloadedError
from octavo.types import EngineInfo, EngineStats, Submission, TokenEvent

MAX_FRAME_BYTES = 64 << 20
_PREFIX = struct.Struct(">I")
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)  # ValueError: text that is not UTF-8


class ModelSource(msgspec.Struct, frozen=True, kw_only=True):
    """Which model the engine loads: what the server's resolver found."""

    name: str
    path: str | None = None  # None: executor = fake, which needs no model


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """The first message: load this. Sent again, unchanged, to every replacement of a dead engine."""

    config: EngineConfig
    model: ModelSource
    eos_token_ids: tuple[int, ...] = ()


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """Run this request: answered by its events, the last of them terminal, or by one ``Refused``."""

    submission: Submission


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """End this request now. If it still runs, its terminal event says ``FinishReason.ABORT``."""

    request_id: str


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """Leave after the current step; what still runs is dropped (the server has answered for it)."""


class EngineReady(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The model is loaded. ``reasons``: why each ``auto`` setting was resolved as it was."""

    info: EngineInfo
    reasons: dict[str, str] = {}


class Report(msgspec.Struct, frozen=True, tag="report"):
    """One finished step, with or without events: the heartbeat that tells a busy engine from a hung one."""

    events: list[TokenEvent]
    stats: EngineStats


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The engine does not take this request: it never ran and has no events."""

    request_id: str
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The engine's last word: before ``EngineReady`` it could not start, after it a step failed beyond repair."""

    code: str
    message: str
    param: str | None = None


ToEngine = Start | Submit | Abort | Shutdown
FromEngine = EngineReady | Report | Refused | Failed


class FrameWriter:
    """Message -> frame. One encoder, used again for every message."""

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()

    def frame(self, message: ToEngine | FromEngine) -> bytearray:
        """Raises ``InvalidRequestError`` if the message holds what msgpack cannot carry or is too large."""
        buffer = bytearray(_PREFIX.size)
        try:
            self._encoder.encode_into(message, buffer, _PREFIX.size)
        except (TypeError, ValueError, OverflowError) as error:  # e.g. an integer of more than 64 bits
            kind = type(message).__name__
            raise InvalidRequestError(f"{kind} message holds a value that cannot be sent: {error}") from None
        num_bytes = len(buffer) - _PREFIX.size
        if num_bytes > MAX_FRAME_BYTES:
            raise InvalidRequestError(f"message of {num_bytes} bytes is over the limit of {MAX_FRAME_BYTES}")
        _PREFIX.pack_into(buffer, 0, num_bytes)
        return buffer


class FrameReader:
    """Bytes in any portions -> bodies of whole frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that ``data`` completes. Raises ``EngineError`` on a frame over the cap: the stream is lost."""
        buffer = self._buffer
        buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(buffer) - start >= _PREFIX.size:
            (num_bytes,) = _PREFIX.unpack_from(buffer, start)
            if num_bytes > MAX_FRAME_BYTES:
                raise EngineError(
                    f"a frame claims {num_bytes} bytes, the limit is {MAX_FRAME_BYTES}: not an octavo message stream"
                )
            end = start + _PREFIX.size + num_bytes
            if end > len(buffer):
                break
            bodies.append(bytes(buffer[start + _PREFIX.size : end]))
            start = end
        if start:
            del buffer[:start]
        return bodies


class EngineMessageDecoder:
    """Body -> message of the engine."""

    def __init__(self) -> None:
        self._decoder: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)

    def decode(self, body: bytes) -> FromEngine:
        """Raises ``EngineError`` if the body is no message."""
        try:
            return self._decoder.decode(body)
        except UNREADABLE as error:
            raise EngineError(f"unreadable message of {len(body)} bytes from the engine: {error}") from None


class CommandDecoder:
    """Body -> command for the engine."""

    def __init__(self) -> None:
        self._decoder: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)

    def decode(self, body: bytes) -> ToEngine | Refused:
        """A ``Submit`` with a value of a wrong type becomes a ``Refused``: one bad request must not end the engine.

        Raises ``EngineError`` if the body is no message at all.
        """
        try:
            return self._decoder.decode(body)
        except UNREADABLE as error:
            request_id = _submitted_id(body)
            if request_id is None:
                raise EngineError(f"unreadable message of {len(body)} bytes from the server: {error}") from None
            return Refused(request_id=request_id, code=InvalidRequestError.code, message=f"bad request: {error}")


def _submitted_id(body: bytes) -> str | None:
    try:
        message: Any = msgspec.msgpack.decode(body)
    except UNREADABLE:
        return None
    submission = message.get("submission") if isinstance(message, dict) else None
    request_id = submission.get("request_id") if isinstance(submission, dict) else None
    return request_id if isinstance(request_id, str) else None


def refusal(request_id: str, error: Exception) -> Refused:
    """``error`` as the message that answers a ``Submit``."""
    return Refused(
        request_id=request_id,
        code=_code(error),
        message=describe(error),
        param=error.param if isinstance(error, OctavoError) and not isinstance(error, OverloadedError) else None,
        retry_after_s=error.retry_after_s if isinstance(error, OverloadedError) else None,
    )


def failure(error: BaseException) -> Failed:
    """``error`` as the engine's last word."""
    return Failed(code=_code(error), message=describe(error), param=getattr(error, "param", None))


def describe(error: BaseException) -> str:
    """One line: Octavo's own errors speak for themselves, others are named."""
    if isinstance(error, OctavoError):
        return error.message
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def restore(message: Refused | Failed) -> OctavoError:
    """The exception that the engine raised, of its own class (by its code), to be raised again by the server."""
    kind = _error_classes().get(message.code, EngineError)
    if issubclass(kind, OverloadedError):
        retry_after_s = message.retry_after_s if isinstance(message, Refused) else None
        return kind(message.message, retry_after_s=1.0 if retry_after_s is None else retry_after_s)
    return kind(message.message, param=message.param)


def _code(error: BaseException) -> str:
    return error.code if isinstance(error, OctavoError) else EngineError.code


def _error_classes() -> dict[str, type[OctavoError]]:
    kinds = (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OctavoError))
    return {kind.code: kind for kind in kinds}
