"""Sandboxed Jinja environment for chat templates: no escape, no unbounded time or memory.

``ImmutableSandboxedEnvironment`` keeps templates away from Python's internals. What it leaves open is resources: nested
loops without output, ``'a' * 10**9``, strings doubled forty times. Here every loop iteration, call, operator, filter and
printed value is charged to a budget (``octavo.text.budget``), and what a template may call is a list, not everything.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from jinja2 import Environment, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from octavo.text.budget import MAX_INT_BITS, Budget, BudgetError, size

_STR_METHOD_NAMES = (
    "capitalize casefold count endswith find format index isalnum isalpha isascii isdecimal isdigit islower isnumeric "
    "isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition "
    "rsplit rstrip split splitlines startswith strip swapcase title upper"
)
_FILTER_NAMES = (
    "abs attr capitalize count d default dictsort e escape first float groupby int items last length list lower map max "
    "min reject rejectattr reverse safe select selectattr sort title trim unique upper wordcount"
)
_STR_METHODS = frozenset(_STR_METHOD_NAMES.split())
_FILTERS = frozenset(_FILTER_NAMES.split())
_GLOBALS = frozenset({"range", "dict", "namespace", "joiner", "cycler"})
_MAX_INDENT = 64


class GenerationTag(Extension):
    """``{% generation %}…{% endgeneration %}`` marks assistant tokens for training; for serving it is its content."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own declaration)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """See the module. ``begin()`` before each rendering; one environment may render on several threads."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, GenerationTag],
            finalize=self.charged_value,
            auto_reload=False,
            cache_size=0,
        )
        self._budget = Budget()
        allowed: dict[str, Callable[..., Any]] = {name: self.filters[name] for name in _FILTERS}
        allowed |= {"tojson": self._to_json, "join": self._join, "replace": self._replace, "indent": self._indent}
        allowed |= {"string": str, "bool": bool, "round": _round, "sum": _sum}
        self.filters = {name: self._charged_filter(function) for name, function in allowed.items()}
        self.globals = {name: value for name, value in self.globals.items() if name in _GLOBALS}

    def begin(self) -> None:
        """A rendering begins: its budget is full."""
        self._budget.start()

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Compile with every loop, literal and printed text routed through the budget."""
        return super()._generate(_charge(source, self), *args, **kwargs)

    # What compiled templates call (see _charge).

    def charged_iteration(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._budget.step()
            yield value

    def charged_concat(self, *values: Any) -> str:
        self._budget.spend(size(values))
        return "".join(str(value) for value in values)

    def charged_value(self, value: Any) -> Any:
        self._budget.spend(size(value))
        return value

    # What the sandbox asks.

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str):
            return attr in _STR_METHODS
        if isinstance(obj, bytes | int | float | complex):
            return False
        return bool(super().is_safe_attribute(obj, attr, value))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        pattern: str = value.__self__

        def charged(*args: Any, **kwargs: Any) -> str:
            if any(char in pattern for char in ":[."):  # {:999999999d} is one field
                raise SecurityError("str.format takes plain fields such as {} or {name} in chat templates")
            self._budget.spend(len(pattern) + pattern.count("{") * (size(args) + size(kwargs)))
            return wrapped(*args, **kwargs)

        return charged

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str) and name in ("replace", "join") and args:
            made = self._replace(owner, *args) if name == "replace" else self._join(args[0], owner)
        else:
            self._budget.step()
            made = super().call(context, obj, *args, **kwargs)
        return self._charge_result(made)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if not numbers and operator == "%" and isinstance(left, str):
            raise SecurityError("the % operator on strings is not available in chat templates; use ~")
        if operator == "**" and (not numbers or abs(right) > MAX_INT_BITS or _bits(left) * abs(right) > MAX_INT_BITS):
            raise BudgetError("a power of numbers that large")
        if operator == "*" and numbers and _bits(left) + _bits(right) > MAX_INT_BITS:
            raise BudgetError("a product of numbers that large")
        if operator == "*" and not numbers:
            count, value = (left, right) if isinstance(left, int) else (right, left)
            self._budget.spend(max(count, 0) * size(value) if isinstance(count, int) else 1)
        elif operator == "+":
            self._budget.spend(1 if numbers else size(left) + size(right))
        else:
            self._budget.step()
        return super().call_binop(context, operator, left, right)

    # Filters that can make more than they are given.

    def _charged_filter(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def charged(*args: Any, **kwargs: Any) -> Any:
            self._budget.spend(sum(size(value) for value in args if isinstance(value, str | list | dict | tuple)))
            return self._charge_result(function(*args, **kwargs))

        return charged

    def _charge_result(self, made: Any) -> Any:
        if isinstance(made, str | list | dict | tuple):
            self._budget.spend(size(made))
        return made

    def _to_json(
        self, value: Any, indent: int | None = None, ensure_ascii: bool = False, separators: Any = None, **_: Any
    ) -> str:
        """JSON without HTML escaping, non-ASCII as itself, keys in their order: as transformers' templates expect it."""
        if indent is not None:
            indent = min(max(int(indent), 0), _MAX_INDENT)
            self._budget.spend(size(value) * (1 + indent))
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=tuple(separators) if separators else None
        )

    def _join(self, values: Iterable[Any], d: Any = "", attribute: Any = None) -> str:
        items = list(values) if attribute is None else [self.getitem(item, attribute) for item in values]
        self._budget.spend(size(items) + size(d) * len(items))
        return str(d).join(str(item) for item in items)

    def _replace(self, value: Any, old: str, new: str, count: int | None = None) -> str:
        text = str(value)
        found = text.count(old) if count is None or count < 0 else min(text.count(old), count)
        self._budget.spend(len(text) + found * len(new))
        return text.replace(old, new, found)

    def _indent(self, value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        pad = width if isinstance(width, str) else " " * min(max(int(width), 0), _MAX_INDENT)
        lines = str(value).split("\n")
        self._budget.spend(len(pad) * len(lines))
        padded = [pad + line if line or blank else line for line in lines[1:]]
        return "\n".join([pad + lines[0] if first else lines[0], *padded])


def _charge(tree: nodes.Template, environment: Environment) -> nodes.Template:
    """Rewrite loops, ``~``, literal collections and plain text into calls of the environment's ``charged_*``."""

    def call(name: str, arguments: list[nodes.Expr], lineno: int) -> nodes.Call:
        node = nodes.Call(nodes.EnvironmentAttribute(name), arguments, [], None, None)
        node.set_environment(environment).set_lineno(lineno)
        return node

    def visit(node: nodes.Node) -> nodes.Node:
        for name, value in node.iter_fields():
            if isinstance(value, nodes.Node):
                setattr(node, name, visit(value))
            elif isinstance(value, list):
                setattr(node, name, [visit(item) if isinstance(item, nodes.Node) else item for item in value])
        if isinstance(node, nodes.For):
            node.iter = call("charged_iteration", [cast(nodes.Expr, node.iter)], node.lineno)
        elif isinstance(node, nodes.Concat):
            return call("charged_concat", node.nodes, node.lineno)
        elif isinstance(node, nodes.List | nodes.Dict) or (isinstance(node, nodes.Tuple) and node.ctx == "load"):
            return call("charged_value", [cast(nodes.Expr, node)], node.lineno)
        elif isinstance(node, nodes.TemplateData):  # printed by Jinja without asking finalize
            return call("charged_value", [nodes.Const(node.data)], node.lineno)
        return node

    visit(tree)
    return tree


def _bits(number: float) -> int:
    return number.bit_length() if isinstance(number, int) else 64


def _round(value: Any, precision: int = 0, method: str = "common") -> float:
    """Rounds to the nearest; Jinja's own raises 10 to ``precision``, whatever that is."""
    if method != "common":
        raise SecurityError("the round filter rounds to the nearest in chat templates")
    return round(float(value), min(max(int(precision), -16), 16))


def _sum(values: Iterable[Any], start: float = 0) -> float:
    """Of numbers only: a sum of lists grows with the square of their number."""
    numbers = list(values)
    if not all(isinstance(number, int | float) for number in [start, *numbers]):
        raise SecurityError("the sum filter adds numbers in chat templates")
    return sum(numbers, start)
