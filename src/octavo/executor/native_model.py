"""ctypes structs of a packed model and its KV cache, as the native step reads them."""

from __future__ import annotations

import ctypes as c

import numpy as np
from numpy.typing import NDArray

from octavo.executor.native_cache import NativeCache
from octavo.kernels.native import structs
from octavo.models.packed import PackedLayer, PackedModel

GATES = {"silu": structs.GateActivation.SILU, "gelu_tanh": structs.GateActivation.GELU_TANH}


class NativeModel:
    """``struct`` points into the packed model, the cache and itself, and keeps all three alive."""

    def __init__(self, packed: PackedModel, cache: NativeCache) -> None:
        self.packed, self.cache = packed, cache
        config = packed.config
        self._layers = (structs.Layer * config.num_layers)(
            *(_layer(layer, config.window(index)) for index, layer in enumerate(packed.layers))
        )
        self.struct = structs.Model(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            gate=GATES[config.hidden_act],
            rms_norm_eps=config.rms_norm_eps,
            attention_scale=config.scale,
            soft_cap=0.0,
            embedding_scale=config.embedding_scale,
            embedding=packed.embedding.struct,
            head=packed.head.struct,
            norm=_address(packed.norm),
            inv_freq=_address(packed.inv_freq),
            windowed_inv_freq=_address(packed.windowed_inv_freq),
            layers=c.addressof(self._layers),
            kv=cache.shape,
            kv_layers=cache.address,
        )


def _layer(layer: PackedLayer, window: int) -> structs.Layer:
    return structs.Layer(
        q=layer.q.struct,
        k=layer.k.struct,
        v=layer.v.struct,
        output=layer.o.struct,
        gate=layer.gate.struct,
        up=layer.up.struct,
        down=layer.down.struct,
        input_norm=_address(layer.input_norm),
        mlp_norm=_address(layer.mlp_norm),
        post_attention_norm=_address(layer.post_attention_norm),
        post_mlp_norm=_address(layer.post_mlp_norm),
        q_norm=_address(layer.q_norm),
        k_norm=_address(layer.k_norm),
        window=window,
    )


def _address(vector: NDArray[np.float32] | None) -> int | None:
    if vector is None:
        return None
    assert vector.dtype == np.float32 and vector.flags.c_contiguous, "the native step reads float32"
    return int(vector.ctypes.data)
