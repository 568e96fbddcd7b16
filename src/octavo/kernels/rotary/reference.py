"""Float64 reference of ``rotary`` and ``rotary_write_kv``: rotary embedding (Su et al., 2021, RoFormer), pair by pair."""

from __future__ import annotations

from torch import Tensor

from octavo.kernels.operation import taking
from octavo.kernels.rotary.checks import RotaryWriteKV


def rotary_reference(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """``x``: ``[T, H, D]``; ``cos``, ``sin``: ``[T, R/2]`` -> float64 ``[T, H, D]``."""
    out, half = x.double().clone(), cos.shape[1]
    for d in range(half):
        c, s = cos[:, d, None].double(), sin[:, d, None].double()
        low, high = x[..., d].double(), x[..., d + half].double()
        out[..., d], out[..., d + half] = low * c - high * s, high * c + low * s
    return out


@taking(RotaryWriteKV)
def rotary_write_kv_reference(call: RotaryWriteKV) -> Tensor:
    """The queries rotated; the cache is written row by row."""
    keys, values = rotary_reference(call.k, call.cos, call.sin), call.v.double()
    for rows, cache, scale in ((keys, call.keys, call.key_scale), (values, call.values, call.value_scale)):
        if scale is not None:
            rows = (rows / scale.double()[:, None]).clamp(-448, 448)
        for row, slot in enumerate(call.slots.tolist()):
            if 0 <= slot < cache.shape[0] * cache.shape[1]:
                cache[slot // cache.shape[1], slot % cache.shape[1]] = rows[row].float().to(cache.dtype)
    return rotary_reference(call.q, call.cos, call.sin)
