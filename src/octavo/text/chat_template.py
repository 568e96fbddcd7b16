"""The model's own chat template: messages -> prompt. Never a template that a client sends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, meta
from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined

from octavo.errors import InvalidRequestError, UnsupportedModelError, UnsupportedParameterError
from octavo.text.sandbox import BoundedEnvironment

MAX_TEMPLATE_CHARS = 1 << 20
# Names that a template's own machinery uses; the variables of a request must not replace them.
_RESERVED = frozenset(
    {
        "self",
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "bos_token",
        "eos_token",
        "unk_token",
        "pad_token",
        "raise_exception",
        "strftime_now",
        "range",
        "loop",
        "chat_template",
    }
)
_TEXT_PARTS = ("text", "input_text", "output_text")


class _TemplateRefusal(TemplateError):
    """The template called raise_exception: the conversation is not one it was made for."""


class ChatTemplate:
    """Compiled once, rendered per request; thread-safe. Sources are one template or several by name.

    Of several, ``tool_use`` serves requests with tools and ``default`` the others.
    """

    def __init__(self, source: str | Mapping[str, str], *, special_tokens: Mapping[str, str], origin: str) -> None:
        """``special_tokens``: ``bos_token`` and its kin, as templates name them. Raises ``UnsupportedModelError``."""
        sources = {"default": source} if isinstance(source, str) else dict(source)
        if not sources:
            raise UnsupportedModelError(f"{origin}: the list of chat templates is empty")
        self._origin = origin
        self._variables = dict(special_tokens)
        self._environment = BoundedEnvironment()
        self._environment.globals |= {"raise_exception": _refuse, "strftime_now": _strftime_now}
        self._read_variables: frozenset[str] = frozenset()
        self._templates = {name: self._compile(name, text) for name, text in sources.items()}

    @property
    def supports_tools(self) -> bool:
        """The template reads ``tools``."""
        return "tools" in self._read_variables

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt. ``variables`` are further template variables, e.g. ``enable_thinking``.

        Raises ``InvalidRequestError`` for malformed messages and for whatever stops the template: its own
        raise_exception, a field it misses, or more work than a prompt can need.
        """
        self._check_variables(variables or {})
        context = {**self._variables, **(variables or {})}
        context |= {"messages": normalise_messages(messages), "add_generation_prompt": add_generation_prompt}
        context["tools"] = [dict(tool) for tool in tools] if tools else None
        template = self._choose(bool(tools))
        self._environment.begin()
        try:
            return template.render(context)
        except _TemplateRefusal as error:
            raise InvalidRequestError(
                f"the chat template of {self._origin!r} refuses these messages: {error.message}", param="messages"
            ) from None
        except SecurityError as error:
            raise InvalidRequestError(
                f"the chat template of {self._origin!r} was stopped: {error.message}", param="messages"
            ) from None
        except (TemplateError, TypeError, ValueError, KeyError, ArithmeticError, LookupError, AttributeError) as error:
            raise InvalidRequestError(
                f"the chat template of {self._origin!r} cannot render these messages: {error}", param="messages"
            ) from error
        except RecursionError:
            raise InvalidRequestError(
                f"the chat template of {self._origin!r} was stopped: nested too deeply", param="messages"
            ) from None

    def _check_variables(self, variables: Mapping[str, Any]) -> None:
        for name in variables:
            if name in _RESERVED or name in self._variables:
                why = "is set by the server; choose a variable of the template"
            elif not name.isidentifier():
                why = "cannot name a variable of the template"
            else:
                continue
            raise InvalidRequestError(f"chat_template_kwargs: {name[:64]!r} {why}", param="chat_template_kwargs")

    def _choose(self, with_tools: bool) -> Template:
        if with_tools and "tool_use" in self._templates:
            return self._templates["tool_use"]
        return self._templates.get("default") or next(iter(self._templates.values()))

    def _compile(self, name: str, source: str) -> Template:
        if len(source) > MAX_TEMPLATE_CHARS:
            raise UnsupportedModelError(
                f"{self._origin}: chat template {name!r} has {len(source)} characters (limit {MAX_TEMPLATE_CHARS})"
            )
        try:
            tree = self._environment.parse(source)
            self._read_variables |= meta.find_undeclared_variables(tree)
            return self._environment.from_string(source)
        except TemplateSyntaxError as error:
            raise UnsupportedModelError(
                f"{self._origin}: chat template {name!r}, line {error.lineno}: {error.message}"
            ) from None
        except RecursionError:
            raise UnsupportedModelError(f"{self._origin}: chat template {name!r} is nested too deeply") from None


def normalise_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as templates expect them; raises ``InvalidRequestError`` that names the field.

    Text parts become one string (joined by line breaks), a missing content becomes "", and the arguments of tool calls,
    which the API carries as JSON text, become the object that templates print themselves.
    """
    if not messages:
        raise InvalidRequestError("messages is empty; send at least one", param="messages")
    return [_normalise(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _normalise(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise InvalidRequestError(f"{where} is {type(message).__name__}; expected an object", param=where)
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise InvalidRequestError(f"{where}.role is {role!r}; expected a string such as 'user'", param=f"{where}.role")
    fixed = dict(message) | {"content": flatten_content(message.get("content"), f"{where}.content")}
    calls = message.get("tool_calls")
    if calls:
        if not isinstance(calls, list | tuple):
            raise InvalidRequestError(
                f"{where}.tool_calls is {type(calls).__name__}; expected a list", param=f"{where}.tool_calls"
            )
        fixed["tool_calls"] = [
            _parse_arguments(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(calls)
        ]
    return fixed


def flatten_content(content: Any, where: str) -> str:
    """A message's content as one string: text parts joined by line breaks, "" for none.

    Raises ``InvalidRequestError``, or ``UnsupportedParameterError`` for a part that is no text; ``where`` names the field.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise InvalidRequestError(
            f"{where} is {type(content).__name__}; expected a string or a list of text parts", param=where
        )
    return "\n".join(_part_text(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part_text(part: Any, where: str) -> str:
    if not isinstance(part, Mapping):
        raise InvalidRequestError(
            f"{where} is {type(part).__name__}; expected {{'type': 'text', 'text': '...'}}", param=where
        )
    kind = part.get("type", "text")
    if kind not in _TEXT_PARTS:
        hint = "; images are not supported by this model" if "image" in str(kind) else ""
        raise UnsupportedParameterError(f"{where}.type: {str(kind)[:64]!r}, expected 'text'{hint}", param=where)
    text = part.get("text")
    if not isinstance(text, str):
        raise InvalidRequestError(f"{where}.text: missing or no string", param=where)
    return text


def _parse_arguments(call: Any, where: str) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise InvalidRequestError(f"{where} has no function object", param=where)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments else {}
        except ValueError as error:
            raise InvalidRequestError(
                f"{where}.function.arguments is not JSON: {error}", param=f"{where}.function.arguments"
            ) from None
    return dict(call) | {"function": dict(function) | {"arguments": arguments}}


def _refuse(message: Any = "") -> NoReturn:
    raise _TemplateRefusal("no reason given" if isinstance(message, Undefined) else str(message))


def _strftime_now(pattern: str) -> str:
    """The local date and time, for templates that tell the model today's date."""
    if len(pattern) > 100:
        raise SecurityError("strftime_now takes a pattern of at most 100 characters")
    return datetime.now().strftime(pattern)
