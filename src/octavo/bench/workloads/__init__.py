"""The registry of workloads: one line each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from octavo.bench.specs import build, canonical
from octavo.bench.workloads.base import Conversation, Workload
from octavo.bench.workloads.chat import Chat
from octavo.bench.workloads.code import Code
from octavo.bench.workloads.long_prompt import LongPrompt
from octavo.bench.workloads.mixed import Mixed
from octavo.bench.workloads.multi_turn import MultiTurn
from octavo.bench.workloads.shared_prefix import SharedPrefix
from octavo.bench.workloads.synthetic import Synthetic
from octavo.bench.workloads.trace import Trace

__all__ = ["WORKLOADS", "Conversation", "Trace", "Workload", "parse_workload", "workload_spec"]

WORKLOADS: Mapping[str, type[Workload]] = MappingProxyType(
    {
        "chat": Chat,
        "long-prompt": LongPrompt,
        "code": Code,
        "shared-prefix": SharedPrefix,
        "multi-turn": MultiTurn,
        "mixed": Mixed,
        "synthetic": Synthetic,
        "trace": Trace,
    }
)


def parse_workload(text: str) -> Workload:
    """``synthetic:prompt=32,output=20`` -> the workload. Raises ``ConfigError`` for unknown names and parameters."""
    return build(text, WORKLOADS, "workload")


def workload_spec(workload: Workload) -> str:
    """Name and all parameters, as a result states them."""
    name = next(name for name, kind in WORKLOADS.items() if type(workload) is kind)
    return canonical(name, workload)
