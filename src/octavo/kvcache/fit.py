"""Can a request ever fit? The allocator's own arithmetic, used by the scheduler and by the server's first check."""

from __future__ import annotations

from octavo.errors import ContextLengthError
from octavo.types import EngineInfo


def blocks_for(num_tokens: int, block_size: int) -> int:
    return -(-num_tokens // block_size)


def check_fits(num_prompt_tokens: int, max_tokens: int, info: EngineInfo) -> None:
    """Raise ``ContextLengthError`` if prompt + output exceed the context or all blocks of the KV cache together."""
    total = num_prompt_tokens + max_tokens
    asked = f"{num_prompt_tokens} prompt + {max_tokens} output tokens = {total}"
    if total > info.max_model_len:
        raise ContextLengthError(
            f"this request can never fit: {asked}, but the context is {info.max_model_len} tokens; "
            "shorten the prompt or lower max_tokens",
            param="max_tokens" if num_prompt_tokens < info.max_model_len else "prompt",
        )
    needed = blocks_for(total, info.block_size)
    if needed > info.num_blocks:
        raise ContextLengthError(
            f"this request can never fit: {asked} need ceil({total} / {info.block_size}) = {needed} KV blocks, but the cache "
            f"has {info.num_blocks} ({info.num_blocks * info.block_size} tokens); shorten the prompt or lower max_tokens, "
            "or start the server with more --num-blocks",
            param="max_tokens",
        )
