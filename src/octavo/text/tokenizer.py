"""``Tokenizer``: text to token ids and back, chats to prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from octavo.errors import InvalidRequestError, ModelNotFoundError
from octavo.text.chat_template import ChatTemplate
from octavo.text.codec import check_unicode
from octavo.text.parts import TokenizerParts


class Tokenizer:
    """Encodes, decodes and renders chats. Immutable after construction, safe to share between threads."""

    def __init__(self, parts: TokenizerParts) -> None:
        self._codec = parts.codec
        self._origin = parts.origin
        self._template = parts.chat_template
        self._added_ends = parts.added_ends
        self.bos_token_id = parts.bos_token_id
        self.eos_token_ids = parts.eos_token_ids
        self.special_ids = parts.codec.special_ids

    @property
    def vocab_size(self) -> int:
        """Highest id + 1. The model's own vocabulary may be padded beyond it; such ids decode to nothing."""
        return self._codec.vocab_size

    @property
    def has_chat_template(self) -> bool:
        return self._template is not None

    @property
    def supports_tools(self) -> bool:
        """The chat template reads ``tools``; one that does not would leave them out of the prompt silently."""
        return self._template is not None and self._template.supports_tools

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of ``text``. Special tokens written in the text are recognised, as the field does for prompts.

        ``add_special_tokens`` adds what the model expects around a plain prompt (BOS, for some EOS). Raises
        ``InvalidRequestError`` for unpaired surrogates.
        """
        if not add_special_tokens or self._added_ends is None:
            return self._codec.encode(text, add_special_tokens)
        before, after = self._added_ends
        return [*before, *self._codec.encode(text, False), *after]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ``token_ids`` as a document of its own: the inverse of ``encode``.

        Invalid UTF-8 becomes U+FFFD (one per maximal invalid part). Raises ``InvalidRequestError`` for a negative id.
        """
        if token_ids and min(token_ids) < 0:
            raise InvalidRequestError(f"token id {min(token_ids)} is negative; ids are 0 to {self.vocab_size - 1}")
        skipped = self.special_ids if skip_special_tokens else frozenset()
        data = b"".join(self._codec.token_bytes(token_id) for token_id in token_ids if token_id not in skipped)
        if self.strips_leading_space and data.startswith(b" "):
            data = data[1:]
        return data.decode("utf-8", errors="replace")

    @property
    def strips_leading_space(self) -> bool:
        """``decode`` drops one leading space because ``encode`` adds one (SentencePiece's dummy prefix)."""
        return self._codec.strips_leading_space

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token, special tokens as they are written; empty for an unknown id."""
        return self._codec.token_bytes(token_id)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt that the model's own chat template makes of ``messages``; ``variables`` go to the template.

        Raises ``InvalidRequestError`` for malformed messages, for what the template refuses, and without a template.
        """
        if self._template is None:
            raise InvalidRequestError(
                f"model {self._origin!r} has no chat template, so it cannot chat; "
                "use /v1/completions with a prompt, or serve an instruction-tuned model",
                param="messages",
            )
        return self._template.render(
            messages, add_generation_prompt=add_generation_prompt, tools=tools, variables=variables
        )

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """``render_chat``, encoded. The template owns every special token: no BOS is added to what it wrote."""
        text = self.render_chat(messages, add_generation_prompt=add_generation_prompt, tools=tools, variables=variables)
        return self._codec.encode(text, False)


def load_tokenizer(path: Path, *, name: str = "") -> Tokenizer:
    """The tokenizer of a model folder (tokenizer.json and its companions) or of a .gguf file.

    Raises ``ModelNotFoundError``, ``WeightFormatError`` for a corrupt file, ``UnsupportedModelError`` for a sound
    tokenizer that Octavo cannot run; each says what to do. Neither torch nor transformers is imported.
    """
    # Imported here: a GGUF reader needs numpy, which a folder does not.
    if path.is_dir():
        from octavo.text.folder_tokenizer import read_folder

        return Tokenizer(read_folder(path, name or path.name))
    if not path.is_file():
        raise ModelNotFoundError(f"no tokenizer: {path} is neither a folder nor a .gguf file")
    from octavo.text.gguf_tokenizer import read_gguf

    return Tokenizer(read_gguf(path, name or path.stem))


class _ByteCodec:
    """One token per UTF-8 byte, then two special tokens, then words that no text encodes to but a fake executor makes."""

    vocab_size = 512
    special_ids = frozenset({256, 257})
    strips_leading_space = False

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        check_unicode(text)
        return ([256] if add_special_tokens else []) + list(text.encode())

    def token_bytes(self, token_id: int) -> bytes:
        if 0 <= token_id < 256:
            return bytes([token_id])
        if token_id in self.special_ids:
            return b"<bos>" if token_id == 256 else b"<eos>"
        return f" w{token_id}".encode() if token_id < self.vocab_size else b""


class FakeTokenizer(Tokenizer):
    """For ``executor=fake``: bytes as tokens, ``<bos>`` 256, ``<eos>`` 257, a vocabulary of 512 and a plain template."""

    def __init__(self) -> None:
        template = ChatTemplate(
            "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant:{% endif %}",
            special_tokens={},
            origin="fake",
        )
        super().__init__(
            TokenizerParts(
                codec=_ByteCodec(),
                origin="fake",
                bos_token_id=256,
                eos_token_ids=frozenset({257}),
                chat_template=template,
            )
        )
