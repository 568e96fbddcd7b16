"""Parameters of OpenAI's API and of vLLM's extensions to it that are known and not honoured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.server.http.body import UntypedParameters

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
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

_IGNORED = frozenset(
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

UNTYPED = UntypedParameters(neutral=_NEUTRAL, ignored=_IGNORED)
