"""Argument checks of the Triton operations: the argument's name, what came and what was expected."""

from __future__ import annotations

import pytest
import torch

import octavo.kernels.ops as K
from octavo.kernels.compare import inputs_of

CPU = torch.device("cpu")


def first(name, words=""):
    """Arguments of the operation's first case with rows whose name holds ``words``."""
    case = next(case for case in inputs_of(name) if words in case.name and not case.name.startswith(("0", "no")))
    return dict(case.make(torch.Generator().manual_seed(0), CPU))


@pytest.mark.parametrize(
    ("name", "argument", "change", "error", "words"),
    [
        ("softmax", "x", lambda x: x.long(), TypeError, "x: dtype int64 is not supported"),
        ("softmax", "x", lambda _: torch.zeros(3, 0), ValueError, r"x: shape \[3, 0\] came"),
        ("layer_norm", "bias", lambda x: x[:-1], ValueError, "bias: shape"),
        ("layer_norm", "weight", lambda x: x.half(), TypeError, "weight: dtype float16 came, float32 was expected"),
        ("add_layer_norm", "residual", lambda x: x[:3].contiguous(), ValueError, "residual: shape"),
        ("add_rms_norm", "residual", lambda x: x.half(), TypeError, "residual: dtype float16 came"),
        ("add_rms_norm", "eps", lambda _: -1.0, ValueError, "eps: -1.0 came"),
        ("rms_norm_backward", "grad", lambda x: x[:3].contiguous(), ValueError, "grad: shape"),
        ("layer_norm_backward", "grad", lambda x: x.to("meta"), ValueError, "grad: on meta, but x is on cpu"),
        ("silu_mul", "x", lambda x: x[:, :-1].contiguous(), ValueError, r"x: shape .* came, \[..., 2 I\]"),
        ("silu_mul", "x", lambda x: x.t(), ValueError, "x: strides"),
        ("silu_mul", "act", lambda _: "relu", ValueError, "act: 'relu' came, silu or gelu_tanh was expected"),
        ("silu_mul_backward", "grad", lambda x: x[:, :1].contiguous(), ValueError, "grad: shape"),
        ("rotary", "x", lambda x: x.transpose(1, 2), ValueError, "x: strides"),
        ("rotary", "cos", lambda x: x.half(), TypeError, "cos: dtype float16"),
        ("rotary", "sin", lambda x: x[:, :-1].contiguous(), ValueError, "sin: shape"),
        ("rotary_write_kv", "k", lambda x: x[:, :2].contiguous(), ValueError, "k: shape"),
        ("rotary_write_kv", "slots", lambda x: x.int(), TypeError, "slots: dtype int32"),
        ("rotary_write_kv", "slots", lambda x: x[:-1].contiguous(), ValueError, r"slots: shape \[8\] came, \[9\]"),
        ("rotary_write_kv", "key_scale", lambda _: torch.ones(3), ValueError, "key_scale: a tensor came, None"),
        ("rotary_write_kv", "values", lambda x: x[:1].contiguous(), ValueError, "values: shape"),
        ("sampling", "logits", lambda x: x[0].contiguous(), ValueError, r"logits: shape \[301\] came, \[\*, \*\]"),
        ("sampling", "top_p", lambda x: x.float(), TypeError, "top_p: dtype float32"),
        ("sampling", "seeds", lambda x: x[:2].contiguous(), ValueError, r"seeds: shape \[2\] came, \[9\]"),
        ("penalties", "starts", lambda x: x[:-1].contiguous(), ValueError, "starts: shape"),
        ("penalties", "counts", lambda x: x[:-1].contiguous(), ValueError, "counts: shape"),
        ("logprobs", "num_top", lambda _: 302, ValueError, "num_top: 302 came, 0 to 256 was expected"),
    ],
)
def test_bad_arguments_are_named(name, argument, change, error, words):
    special = {"sampling": "plain", "silu_mul": "37x2046", "silu_mul_backward": "37x2046", "rotary_write_kv": "9 rows"}
    good = first(name, special.get(name, "9 rows" if name == "rotary" else "7x64" if "norm" in name else ""))
    getattr(K, name)(**good)
    with pytest.raises(error, match=words):
        getattr(K, name)(**{**good, argument: change(good[argument]) if argument in good else change(None)})
