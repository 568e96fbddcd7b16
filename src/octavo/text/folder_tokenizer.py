"""The tokenizer of a Hugging Face model folder: tokenizer.json and the small files around it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from octavo.errors import ModelNotFoundError, UnsupportedModelError, WeightFormatError
from octavo.text.chat_template import MAX_TEMPLATE_CHARS, ChatTemplate
from octavo.text.codec import BackendCodec
from octavo.text.parts import TURN_END_TOKENS, TokenizerParts

_MAX_FILE_BYTES = 256 << 20
_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


def read_folder(folder: Path, name: str) -> TokenizerParts:
    """Raises ``UnsupportedModelError`` without a tokenizer.json and ``WeightFormatError`` for broken files.

    Which special tokens surround a prompt is up to tokenizer.json's post-processor, as in transformers 5.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise _missing(folder)
    codec = BackendCodec(_read_backend(file), origin=name)
    settings = _read_json(folder / "tokenizer_config.json")
    specials = _special_tokens(settings, _read_json(folder / "special_tokens_map.json"))
    return TokenizerParts(
        codec=codec,
        origin=name,
        bos_token_id=_id_of(codec, specials.get("bos_token")),
        eos_token_ids=_end_ids(folder, codec, specials),
        chat_template=_read_template(folder, settings, specials, name),
    )


def _missing(folder: Path) -> Exception:
    if not folder.is_dir():
        return ModelNotFoundError(f"no tokenizer: {folder} is not a folder")
    if (folder / "tokenizer.model").is_file() or (folder / "vocab.json").is_file():
        return UnsupportedModelError(
            f"{folder} has a tokenizer only in an older format. Convert it once: "
            "transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes the tokenizer.json"
        )
    return UnsupportedModelError(
        f"{folder} has no tokenizer.json. Fetch it from where the weights came from, or use a .gguf file, "
        "which carries its tokenizer"
    )


def _read_backend(file: Path) -> Backend:
    text = _read_text(file)
    try:
        return Backend.from_str(text)
    except Exception as error:  # the library raises plain Exception for whatever is wrong in the file
        raise WeightFormatError(f"{file} is not a tokenizer that this version of tokenizers reads: {error}") from None


def _read_text(file: Path, limit: int = _MAX_FILE_BYTES) -> str:
    if file.stat().st_size > limit:
        raise WeightFormatError(f"{file} has {file.stat().st_size} bytes (limit {limit})")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise WeightFormatError(f"{file} is not UTF-8: {error}") from None


def _read_json(file: Path) -> dict[str, Any]:
    """The object in a file, empty if there is no such file."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(_read_text(file))
    except (ValueError, RecursionError) as error:
        raise WeightFormatError(f"{file} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise WeightFormatError(f"{file} holds {type(found).__name__}; expected a JSON object")
    return found


def _special_tokens(settings: Mapping[str, Any], special_map: Mapping[str, Any]) -> dict[str, str]:
    """``bos_token`` and its kin as text, from either file; each is a string or an object with ``content``."""
    found: dict[str, str] = {}
    for name in _TOKEN_NAMES:
        value = settings.get(name, special_map.get(name))
        if isinstance(value, Mapping):
            value = value.get("content")
        if isinstance(value, str):
            found[name] = value
    return found


def _id_of(codec: BackendCodec, token: str | None) -> int | None:
    return None if token is None else codec.token_id(token)


def _end_ids(folder: Path, codec: BackendCodec, specials: Mapping[str, str]) -> frozenset[int]:
    """End-of-sequence ids from generation_config.json, config.json and the tokenizer, and the known ends of a turn."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        values = _read_json(folder / name).get("eos_token_id")
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                found.add(value)
    eos = _id_of(codec, specials.get("eos_token"))
    if eos is not None:
        found.add(eos)
    ends = (codec.token_id(token) for token in TURN_END_TOKENS)
    return frozenset(found | {end for end in ends if end is not None and end in codec.special_ids})


def _read_template(
    folder: Path, settings: Mapping[str, Any], specials: Mapping[str, str], name: str
) -> ChatTemplate | None:
    """chat_template.jinja, else chat_template.json, else the tokenizer_config's: one template or a list of named ones."""
    file = folder / "chat_template.jinja"
    source: Any = _read_text(file, 4 * MAX_TEMPLATE_CHARS) if file.is_file() else None
    if source is None:
        source = _read_json(folder / "chat_template.json").get("chat_template", settings.get("chat_template"))
    if not source:
        return None
    if isinstance(source, list):
        source = _named_templates(source, name)
    if not isinstance(source, str | dict):
        raise WeightFormatError(
            f"{name}: chat_template is {type(source).__name__}; expected text or a list of named ones"
        )
    return ChatTemplate(source, special_tokens=specials, origin=name)


def _named_templates(entries: list[Any], name: str) -> dict[str, str]:
    named: dict[str, str] = {}
    for entry in entries:
        label, text = (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (None, None)
        if not isinstance(label, str) or not isinstance(text, str):
            raise WeightFormatError(f"{name}: each named chat template needs a name and a template as text")
        named[label] = text
    return named
