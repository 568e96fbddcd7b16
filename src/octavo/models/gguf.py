"""GGUF weight source: config and tensors under Hugging Face names in Hugging Face's layout.

llama.cpp's writers store two things differently, and this file undoes both: tensors have other names, and for ``llama``
the rows of q and k are interleaved for its rotary kernel. Gemma's norms already contain their offset of 1.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from octavo.errors import UnsupportedModelError, WeightFormatError
from octavo.gguf.header import TENSOR_TYPES, GGUFHeader, TensorInfo, read_gguf_header
from octavo.models.config import TransformerConfig
from octavo.models.dequantize import dequantize_into
from octavo.models.gguf_config import ROPE_FREQS, config_from_header
from octavo.models.shapes import tensor_shapes

_GLOBAL_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_POST_NORM_NAMES = {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_PERMUTED_ARCHITECTURES = frozenset({"llama"})
_LAYER_TENSOR = re.compile(r"blk\.(\d{1,4})\.(\w+)\.(weight|bias)")
_IGNORED = re.compile(rf"{re.escape(ROPE_FREQS)}|blk\.\d+\.attn_rot_embd\.weight")  # folded into the config; a constant


def read_gguf_config(path: Path) -> TransformerConfig:
    """What the file's model is, every tensor's presence and shape checked. Reads no weights and imports no torch.

    Raises ``ModelNotFoundError``, ``WeightFormatError`` or ``UnsupportedModelError``.
    """
    source = GGUFWeights(path)
    source.close()
    return source.config


class GGUFWeights:
    """A ``WeightSource`` over one GGUF file. Reads with ``pread`` in chunks: no page of the file stays mapped."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._header = read_gguf_header(path)
        self._file = path.open("rb")
        try:
            self._config = config_from_header(self._header, self._read_plain)
            self._infos = _by_canonical_name(self._header, self._config, self._name)
        except BaseException:
            self._file.close()
            raise

    @property
    def config(self) -> TransformerConfig:
        return self._config

    def names(self) -> list[str]:
        return list(self._infos)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._info(name).shape

    def get(self, name: str) -> np.ndarray:
        """A new float32 array in Hugging Face's layout."""
        out = np.empty(self.shape(name), np.float32)
        self.read_into(name, out)
        return out

    def read_into(self, name: str, out: np.ndarray) -> None:
        """Dequantise into ``out``: C-contiguous float32 of the tensor's shape. Safe to call from several threads."""
        info = self._info(name)
        num_heads = self._permuted_heads(name)
        if not num_heads:
            dequantize_into(info, lambda start, size: self._read(info, start, size), out)
            return
        raw = unpermute_rows(self._read(info, 0, info.num_bytes).reshape(info.shape[0], -1), num_heads).reshape(-1)
        dequantize_into(info, lambda start, size: raw[start : start + size], out)

    def stored_type(self, name: str) -> str:
        """Ggml's word: F32, Q4_K, ..."""
        return self._info(name).type_name

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """``uint8 [stop - start, bytes of a row]``: Hugging Face's order restored, still quantised."""
        info = self._info(name)
        num_rows = info.shape[0]
        row_bytes = info.num_bytes // num_rows
        unit = num_rows // (self._permuted_heads(name) or num_rows)  # rows that are reordered among themselves
        first, last = start // unit * unit, -(-stop // unit) * unit
        rows = self._read(info, first * row_bytes, (last - first) * row_bytes).reshape(last - first, row_bytes)
        if unit > 1:
            rows = unpermute_rows(rows, (last - first) // unit)
        return rows[start - first : stop - first]

    def close(self) -> None:
        self._file.close()

    def _info(self, name: str) -> TensorInfo:
        info = self._infos.get(name)
        if info is None:
            raise WeightFormatError(f"{self._name} has no tensor for {name!r}")
        return info

    def _permuted_heads(self, name: str) -> int:
        """How many heads the rows of this tensor are interleaved within; 0: not at all."""
        if self._config.architecture not in _PERMUTED_ARCHITECTURES:
            return 0
        if ".q_proj." in name:
            return self._config.num_heads
        return self._config.num_kv_heads if ".k_proj." in name else 0

    def _read(self, info: TensorInfo, start: int, num_bytes: int) -> np.ndarray:
        data = os.pread(self._file.fileno(), num_bytes, info.offset + start)
        if len(data) != num_bytes:
            raise WeightFormatError(f"{self._name} became shorter while tensor {info.name!r} was read")
        return np.frombuffer(data, np.uint8)

    def _read_plain(self, gguf_name: str) -> np.ndarray:
        info = self._header.tensors[gguf_name]
        if info.type_name != "F32" or len(info.shape) != 1:
            raise WeightFormatError(f"tensor {gguf_name!r} must be a vector of F32, not {info.type_name} {info.shape}")
        return self._read(info, 0, info.num_bytes).view(np.float32)


def unpermute_rows(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """Undo the interleaving of q and k: within a head, stored row ``2 j + half`` is row ``half * d/2 + j``.

    ``rows``: ``[num_heads * d, anything]``, quantised bytes or values alike; returns a copy.
    """
    pairs = rows.reshape(num_heads, rows.shape[0] // num_heads // 2, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def canonical_name(gguf_name: str, *, post_norms: bool) -> str | None:
    """The Hugging Face name of a GGUF tensor; None if there is no such tensor in any architecture of the table."""
    stem, _, kind = gguf_name.rpartition(".")
    if stem in _GLOBAL_NAMES and kind == "weight":
        return f"{_GLOBAL_NAMES[stem]}.{kind}"
    match = _LAYER_TENSOR.fullmatch(gguf_name)
    if match is None:
        return None
    part = (_LAYER_NAMES | _POST_NORM_NAMES if post_norms else _LAYER_NAMES).get(match[2])
    return part and f"model.layers.{int(match[1])}.{part}.{match[3]}"


def _by_canonical_name(header: GGUFHeader, config: TransformerConfig, file_name: str) -> dict[str, TensorInfo]:
    """Exactly the tensors that the config asks for, each in its shape."""
    found: dict[str, TensorInfo] = {}
    for gguf_name, info in header.tensors.items():
        if _IGNORED.fullmatch(gguf_name):
            continue
        name = canonical_name(gguf_name, post_norms=config.post_norms)
        if name is None:
            raise UnsupportedModelError(
                f"{file_name} has a tensor {gguf_name!r} that octavo does not know what to do with"
            )
        found[name] = info
    expected = tensor_shapes(config)
    if missing := [name for name in expected if name not in found]:
        raise WeightFormatError(f"{file_name} lacks {len(missing)} tensors, the first for {missing[0]!r}")
    if extra := [info.name for name, info in found.items() if name not in expected]:
        raise UnsupportedModelError(
            f"{file_name} has {len(extra)} tensors its metadata does not explain: {extra[0]!r}, ..."
        )
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise WeightFormatError(
                f"{file_name}: tensor {found[name].name!r} has shape {found[name].shape}, its metadata says {shape}"
            )
        if len(shape) == 1 and TENSOR_TYPES[found[name].type_id][1] != 1:
            raise WeightFormatError(f"{file_name}: vector {found[name].name!r} is quantised ({found[name].type_name})")
    return {name: found[name] for name in expected}
