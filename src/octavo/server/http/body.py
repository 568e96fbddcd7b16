"""Request bodies: read with a cap, decoded from JSON, validated against a typed schema.

Every failure is an ``InvalidRequestError`` that names the field, the value that came and what was expected.
"""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
from starlette.requests import Request

from octavo.errors import InvalidRequestError, PayloadTooLargeError, UnsupportedParameterError

T = TypeVar("T", bound=msgspec.Struct)

BODY_TIMEOUT_S = 60.0  # a client that trickles its body holds a connection; not for ever
_VALIDATION = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>.*?)`)?$", re.DOTALL)
_FIELD = re.compile(r"(?:required|unknown) field `(?P<name>.*?)`", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True)
class UntypedParameters:
    """Parameters that an API knows beyond the typed fields of a body, and that are not honoured.

    ``neutral``: name -> values that ask for nothing (null always does); one with another value would change the response
    and is refused. ``ignored``: accepted with any value, without effect on the response. A name that nobody knows is
    refused with the nearest one: silence about a lost parameter would be worse.
    """

    neutral: Mapping[str, tuple[Any, ...]]
    ignored: frozenset[str]

    def typed_fields(self, body: dict[str, Any], known: Iterable[str]) -> dict[str, Any]:
        """``body`` reduced to ``known`` fields that are not null.

        Raises ``UnsupportedParameterError`` for a parameter that we would have to honour, ``InvalidRequestError`` for a
        name that nobody knows.
        """
        fields = frozenset(known)
        kept: dict[str, Any] = {}
        for name, value in body.items():
            if name in fields:
                if value is not None:
                    kept[name] = value
            elif name in self.neutral:
                if value is not None:
                    self._check_neutral(name, value)
            elif name not in self.ignored:
                raise self._unknown(name, fields)
        return kept

    def schemas(self) -> dict[str, dict[str, Any]]:
        """JSON schema of each parameter, for the API's description."""
        ignored = {name: {"description": "Accepted; has no effect on the response."} for name in sorted(self.ignored)}
        text = "Not honoured yet: only these values pass."
        neutral = {
            name: {"description": text, "enum": [None, *values]} for name, values in sorted(self.neutral.items())
        }
        return ignored | neutral

    def _check_neutral(self, name: str, value: Any) -> None:
        allowed = self.neutral[name]
        # 0 == False and 1 == 1.0 in Python; the first would be a wrong type let through, so compare types of bools as well.
        if any(value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in allowed):
            return
        values = " or ".join(repr(neutral) for neutral in allowed)
        hint = f"leave it out or send {values}" if allowed else "leave it out"
        raise UnsupportedParameterError(f"{name}: not supported by this server yet; {hint}", param=name)

    def _unknown(self, name: str, fields: frozenset[str]) -> InvalidRequestError:
        shown = name if len(name) <= 64 else name[:61] + "..."
        near = difflib.get_close_matches(shown, sorted(fields | self.ignored | self.neutral.keys()), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(fields))}"
        return InvalidRequestError(f"{shown!r}: unknown parameter; {hint}", param=shown)


@dataclass(frozen=True)
class BodySchema(Generic[T]):
    """What a route takes: typed fields, and the parameters that its API knows beyond them."""

    kind: type[T]
    untyped: UntypedParameters


async def read_body(request: Request, schema: BodySchema[T], max_body_bytes: int) -> T:
    """The validated body of ``request``.

    Raises ``PayloadTooLargeError``, ``InvalidRequestError``, or ``ClientDisconnect`` if the client disconnects meanwhile.
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        came = repr(media_type[:64]) if media_type else "missing"
        raise InvalidRequestError(f"content-type: {came}, expected application/json", param="content-type")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await _read_bytes(request, max_body_bytes)
    except TimeoutError:
        raise InvalidRequestError(f"body: not received within {BODY_TIMEOUT_S:.0f} s") from None
    return decode(body, schema)


async def _read_bytes(request: Request, max_body_bytes: int) -> bytes:
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


def decode(body: bytes, schema: BodySchema[T]) -> T:
    """Validate JSON bytes against ``schema``; raises ``InvalidRequestError`` or ``UnsupportedParameterError``."""
    try:
        raw = msgspec.json.decode(body)
    except RecursionError:
        raise InvalidRequestError("body: nested too deeply", param="body") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"body: not valid JSON ({error})", param="body") from None
    if not isinstance(raw, dict):
        raise InvalidRequestError(f"body: expected a JSON object, got {_kind_of(raw)}", param="body")
    fields = schema.untyped.typed_fields(raw, schema.kind.__struct_fields__)
    try:
        return msgspec.convert(fields, schema.kind)
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
