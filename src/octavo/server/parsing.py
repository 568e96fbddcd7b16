"""How do bytes become a typed request? Read with a cap, decode, refuse what we do not honour, validate.

Every failure is an ``InvalidRequestError`` that names the field, the value that came and what was expected.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from octavo.errors import InvalidRequestError, PayloadTooLargeError
from octavo.server.refusals import without_refusals

T = TypeVar("T", bound=msgspec.Struct)

BODY_TIMEOUT_S = 60.0  # a client that trickles its body holds a connection; not for ever
_VALIDATION = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>.*?)`)?$", re.DOTALL)
_FIELD = re.compile(r"(?:required|unknown) field `(?P<name>.*?)`", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


async def read_request(request: Request, kind: type[T], max_body_bytes: int) -> T:
    """The validated body of ``request``.

    Raises ``PayloadTooLargeError``, ``InvalidRequestError``, or ``ClientDisconnect`` if the client left meanwhile.
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        came = repr(media_type[:64]) if media_type else "missing"
        raise InvalidRequestError(f"content-type: {came}, expected application/json", param="content-type")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await _read_body(request, max_body_bytes)
    except TimeoutError:
        raise InvalidRequestError(f"body: not received within {BODY_TIMEOUT_S:.0f} s") from None
    return decode(body, kind)


async def _read_body(request: Request, max_body_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:20]) > max_body_bytes:
        raise PayloadTooLargeError(f"body: {declared[:20]} bytes, at most {max_body_bytes}", param="body")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_body_bytes:
            raise PayloadTooLargeError(f"body: more than {size - 1} bytes, at most {max_body_bytes}", param="body")
        parts.append(part)
    return b"".join(parts)


def decode(body: bytes, kind: type[T]) -> T:
    """Validate JSON bytes as ``kind``; raises ``InvalidRequestError`` or ``UnsupportedParameterError``."""
    try:
        raw = msgspec.json.decode(body)
    except RecursionError:
        raise InvalidRequestError("body: nested too deeply", param="body") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"body: not valid JSON ({error})", param="body") from None
    if not isinstance(raw, dict):
        raise InvalidRequestError(f"body: expected a JSON object, got {_kind_of(raw)}", param="body")
    fields = without_refusals(raw, kind.__struct_fields__)
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise _explain(str(error), fields) from None


def _explain(text: str, body: dict[str, Any]) -> InvalidRequestError:
    """msgspec's words, with the field's name first and the value that came last."""
    match = _VALIDATION.match(text)
    what, path = (match["what"], match["path"] or "$") if match else (text, "$")
    field = _FIELD.search(what)
    if field:
        prefix = path.removeprefix("$").lstrip(".")
        name = f"{prefix}.{field['name']}" if prefix else field["name"]
        missing = "required" in what.split("`")[0]
        return InvalidRequestError(f"{name}: {'missing' if missing else 'unknown parameter'}", param=name)
    name = path.removeprefix("$").lstrip(".") or "body"
    expected = what.replace("`", "").replace("Expected", "expected", 1)
    expected = expected.split(", got ")[0]
    return InvalidRequestError(f"{name}: {expected}, got {_at(body, path)}", param=name)


def _at(body: Any, path: str) -> str:
    """The value at msgspec's ``path`` (``$.messages[0].role``), as far as it can be followed, shortened for a message."""
    value = body
    for name, index in _STEP.findall(path):
        try:
            value = value[name] if name else value[int(index)]
        except (KeyError, IndexError, TypeError):
            break
    return show(value)


def show(value: Any) -> str:
    """A value as it stood in the JSON, at most 64 characters; a container only by its kind and size."""
    if isinstance(value, dict | list):
        return _kind_of(value)
    text = msgspec.json.encode(value).decode() if not isinstance(value, int) or abs(value) < 2**63 else str(value)
    return text if len(text) <= 64 else text[:61] + "..."


def _kind_of(value: Any) -> str:
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, dict):
        return f"an object with {len(value)} keys"
    return f"{type(value).__name__} {show(value)}" if value is not None else "null"


__all__ = ["ClientDisconnect", "decode", "read_request", "show"]
