"""Ragged attention over a paged KV cache: ``prepare`` once a step, then ``write_kv`` and ``attention`` in every layer.

``contract`` says what the arguments mean, ``reference`` what the answer is, ``cpu`` computes it with torch (on CUDA too).
"""

from octavo.kernels.paged_attention.batch import AttentionBatch, LayerCache, new_layer_cache
from octavo.kernels.paged_attention.cpu import AttentionPlan, attention, prepare, write_kv

__all__ = ["AttentionBatch", "AttentionPlan", "LayerCache", "attention", "new_layer_cache", "prepare", "write_kv"]
