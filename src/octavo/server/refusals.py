"""Which parameters of the API are known but not honoured, and which of them may pass?

A parameter that would change the answer passes only with a value that asks for nothing; one without effect on the answer
always passes; a name nobody knows is refused with the nearest one. Silence about a lost parameter is the worst answer.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from octavo.errors import InvalidRequestError, UnsupportedParameterError

# name -> values that ask for nothing. null always does.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    # OpenAI
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),  # "auto" without tools calls none
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "web_search_options": (),
    "verbosity": ("medium",),
    "service_tier": ("auto", "default"),
    "suffix": ("",),
    "moderation": (),
    # vLLM
    "prompt_logprobs": (),
    "truncate_prompt_tokens": (),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_decoding_backend": (),
    "guided_whitespace_pattern": (),
    "structural_tag": (),
    "use_beam_search": (False,),
    "length_penalty": (1.0,),
    "early_stopping": (False,),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "logits_processors": ([],),
    "spaces_between_special_tokens": (True,),
    "return_tokens_as_token_ids": (False,),
    "return_token_ids": (False,),
    "return_token_strs": (False,),
    "continue_final_message": (False,),
    "chat_template": (),  # never one sent by a client: a template is a program
    "documents": ([],),
    "mm_processor_kwargs": ({},),
    "include_reasoning": (True,),
    "cache_salt": (),
    "kv_transfer_params": (),
    "vllm_xargs": ({},),
    "prompt_embeds": (),
}

# Accepted and without effect on the answer.
HARMLESS = frozenset(
    {
        "user",
        "store",
        "metadata",
        "parallel_tool_calls",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "request_id",
    }
)


def without_refusals(body: dict[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """``body`` reduced to ``known`` fields that are not null.

    Raises ``UnsupportedParameterError`` for a parameter that we would have to honour, ``InvalidRequestError`` for a name
    that nobody knows.
    """
    fields = frozenset(known)
    kept: dict[str, Any] = {}
    for name, value in body.items():
        if name in fields:
            if value is not None:
                kept[name] = value
        elif value is None or name in HARMLESS:
            _check_name(name, fields)
        elif name in NEUTRAL:
            _check_neutral(name, value)
        else:
            _check_name(name, fields)
    return kept


def _check_neutral(name: str, value: Any) -> None:
    allowed = NEUTRAL[name]
    # 0 == False and 1 == 1.0 in Python; the first would be a wrong type let through, so compare types of bools as well.
    if any(value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in allowed):
        return
    hint = f"leave it out or send {' or '.join(repr(neutral) for neutral in allowed)}" if allowed else "leave it out"
    raise UnsupportedParameterError(f"{name}: not supported by this server yet; {hint}", param=name)


def _check_name(name: str, fields: frozenset[str]) -> None:
    if name in HARMLESS or name in NEUTRAL:
        return
    shown = name if len(name) <= 64 else name[:61] + "..."
    near = difflib.get_close_matches(shown, sorted(fields | HARMLESS | NEUTRAL.keys()), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(fields))}"
    raise InvalidRequestError(f"{shown!r}: unknown parameter; {hint}", param=shown)
