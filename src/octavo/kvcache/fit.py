"""Check that a request fits the KV cache at all: blocks needed and blocks there, used by server and engine."""

from __future__ import annotations

from octavo.errors import ContextLengthError
from octavo.types import EngineInfo


def blocks_for(num_tokens: int, block_size: int) -> int:
    """Blocks that hold this many tokens."""
    return -(-num_tokens // block_size)


def check_fits(num_prompt_tokens: int, max_tokens: int | None, info: EngineInfo, param: str = "prompt") -> None:
    """Raise ``ContextLengthError`` if prompt + output exceed the context or all blocks of the KV cache together.

    ``max_tokens`` None asks for whatever is left, which must be at least one token. ``param`` is the prompt's name in the
    request.
    """
    num_output_tokens = 1 if max_tokens is None else max_tokens
    total = num_prompt_tokens + num_output_tokens
    if total <= info.max_request_tokens:
        return
    hint = "shorten the prompt" if max_tokens is None else "shorten the prompt or lower max_tokens"
    if total > info.max_model_len:
        limit = f"the context of {info.model} is {info.max_model_len} tokens"
    else:
        needed = blocks_for(total, info.block_size)
        limit = f"they need ceil({total} / {info.block_size}) = {needed} KV blocks, the cache has {info.num_blocks}"
        hint += ", or start the server with more --num-blocks"
    raise ContextLengthError(
        f"{param}: this request can never fit: {num_prompt_tokens} prompt tokens + {num_output_tokens} output tokens = "
        f"{total}, but {limit}; {hint}",
        param=param,
    )
