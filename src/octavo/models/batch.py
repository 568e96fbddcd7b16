"""``ModelBatch``, the input of a model's forward pass: token ids, positions, block tables and slots as flat tensors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from octavo.kernels.paged_attention.batch import AttentionBatch


@dataclass(frozen=True, slots=True)
class ModelBatch:
    """``T`` token rows of ``B`` requests, request after request, decodes first."""

    token_ids: Tensor  # int64 [T]
    attention: AttentionBatch  # positions inside
    logit_rows: Tensor  # int64 [S]: the rows whose logits are wanted (the last row of each request that samples)
