"""ctypes structs of the native kernels, field by field (``types.hpp``, ``model.hpp``, ``kernel_table.hpp``, ``sampling.hpp``)."""

from __future__ import annotations

import ctypes as c
import enum

import numpy as np

TILE, GROUP, SUB_BLOCK = 16, 32, 16


class Format(enum.IntEnum):
    """How a packed matrix stores its elements; see ``types.hpp``."""

    F32 = 0
    BF16 = 1
    Q8 = 2
    U8 = 3
    U4 = 4


class ScaleType(enum.IntEnum):
    """Of a packed matrix' scales and mins."""

    F16 = 0
    F32 = 1


class Matrix(c.Structure):
    """A packed weight ``[n, k]``; the memory behind it is borrowed."""

    _fields_ = (
        ("format", c.c_int32),
        ("scale_type", c.c_int32),
        ("n", c.c_int32),
        ("k", c.c_int32),
        ("num_tiles", c.c_int32),
        ("num_groups", c.c_int32),
        ("scales_per_group", c.c_int32),
        ("unused", c.c_int32),
        ("elements", c.c_void_p),
        ("scales", c.c_void_p),
        ("mins", c.c_void_p),
        ("bias", c.c_void_p),
    )


class Activations(c.Structure):
    """Rows as a matrix product takes them; the memory behind it is borrowed."""

    _fields_ = (
        ("q", c.c_void_p),
        ("scales", c.c_void_p),
        ("sums", c.c_void_p),
        ("sums_of_16", c.c_void_p),
        ("offsets", c.c_void_p),
        ("floats", c.c_void_p),
        ("groups", c.c_int32),
    )


class Output(c.Structure):
    """Where a product goes; ``stride`` in floats."""

    _fields_ = (("to", c.c_void_p), ("stride", c.c_int64), ("accumulate", c.c_bool))


class KvLayer(c.Structure):
    """One layer's keys and values; the memory behind it is borrowed."""

    _fields_ = (("keys", c.c_void_p), ("values", c.c_void_p), ("key_scales", c.c_void_p), ("value_scales", c.c_void_p))


class KvType(enum.IntEnum):
    """How keys and values are stored."""

    F32 = 0
    BF16 = 1
    I8 = 2


class KvShape(c.Structure):
    """The paged cache; ``block_size`` is a multiple of ``SUB_BLOCK``."""

    _fields_ = tuple((name, c.c_int32) for name in ("type", "num_blocks", "block_size", "num_kv_heads", "head_dim"))


class AttentionShape(c.Structure):
    """Heads, the sliding window (0: none), the scale of scores and their soft cap (0: none)."""

    _fields_ = (
        *((name, c.c_int32) for name in ("num_heads", "num_kv_heads", "head_dim", "window")),
        ("scale", c.c_float),
        ("soft_cap", c.c_float),
    )


class Layer(c.Structure):
    """One layer's weights; vectors are float32, null where there is none."""

    _fields_ = (
        *((name, Matrix) for name in ("q", "k", "v", "output", "gate", "up", "down")),
        *((name, c.c_void_p) for name in ("input_norm", "mlp_norm", "post_attention_norm", "post_mlp_norm")),
        *((name, c.c_void_p) for name in ("q_norm", "k_norm")),
        ("window", c.c_int32),
        ("unused", c.c_int32),
    )


class GateActivation(enum.IntEnum):
    """The gated MLP's activation."""

    SILU = 0
    GELU_TANH = 1


class Model(c.Structure):
    """A transformer and its cache; the memory behind it is borrowed."""

    _fields_ = (
        *((name, c.c_int32) for name in ("vocab_size", "hidden_size", "intermediate_size", "num_layers")),
        *((name, c.c_int32) for name in ("num_heads", "num_kv_heads", "head_dim", "gate")),
        *((name, c.c_float) for name in ("rms_norm_eps", "attention_scale", "soft_cap", "embedding_scale")),
        ("embedding", Matrix),
        ("head", Matrix),
        *((name, c.c_void_p) for name in ("norm", "inv_freq", "windowed_inv_freq", "layers")),
        ("kv", KvShape),
        ("kv_layers", c.c_void_p),
    )


class StepOutput(c.Structure):
    """Where a step's logits and tokens go."""

    _fields_ = (("logits", c.c_void_p), ("tokens", c.c_void_p))


SAMPLING_ROW = np.dtype(
    [
        ("uniform", "f8"),
        ("top_p", "f8"),
        ("temperature", "f4"),
        ("min_p", "f4"),
        ("top_k", "i4"),
        ("row", "i4"),
    ]
)


class StepError(enum.IntEnum):
    """What ``octavo_step`` returns."""

    OK = 0
    TOO_LARGE = 1
    BAD_TOKEN = 2
    BAD_BATCH = 3
