"""Parts of a tokenizer as a model's folder or GGUF file gives them: codec, special tokens, chat template."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.text.chat_template import ChatTemplate
from octavo.text.codec import TextCodec

# Tokens that end a turn in chat formats, should a model folder or file forget to list them as end-of-sequence.
TURN_END_TOKENS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<|end|>",
)


@dataclass(frozen=True, kw_only=True)
class TokenizerParts:
    """What a reader of some format found: everything that a ``Tokenizer`` is made of."""

    codec: TextCodec
    origin: str  # the model's name as error messages show it
    bos_token_id: int | None = None
    eos_token_ids: frozenset[int] = frozenset()
    added_ends: tuple[tuple[int, ...], tuple[int, ...]] | None = None  # put around a prompt; None: the codec knows
    chat_template: ChatTemplate | None = None
