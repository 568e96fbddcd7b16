"""Argument checks of paged_attention: the argument's name, what came and what was expected."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from octavo.kernels.paged_attention.inputs import DECODES, RAGGED
from octavo.kernels.registry import operation


def arguments(fp8: bool = False):
    return dict(replace(RAGGED, fp8=fp8).make(torch.Generator().manual_seed(0), torch.device("cpu")))


@pytest.mark.parametrize(
    ("name", "change", "error", "words"),
    [
        ("q", lambda x: x.double(), TypeError, "q: dtype float64 is not supported"),
        ("q", lambda x: x.transpose(0, 1), ValueError, "q: strides"),
        ("q", lambda x: x[:, :3].contiguous(), ValueError, "q: 3 heads came, a multiple of the cache's 2 heads"),
        ("q", lambda x: x[:, 0].contiguous(), ValueError, r"q: shape \[60, 16\] came"),
        ("keys", lambda x: x.half(), TypeError, "keys: dtype float16 is not supported; expected: float32"),
        ("keys", lambda x: x[..., :8].contiguous(), ValueError, "values: shape"),
        ("values", lambda x: x[:-1].contiguous(), ValueError, "values: shape"),
        ("values", lambda x: x.to("meta"), ValueError, "values: on meta"),
        ("query_starts", lambda x: x.long(), TypeError, "query_starts: dtype int64"),
        ("query_starts", lambda x: x[1:].contiguous(), ValueError, r"query_starts: shape \[6\] came, \[7\] was"),
        (
            "block_tables",
            lambda x: x[:-1].contiguous(),
            ValueError,
            r"block_tables: shape \[5, 10\] came, \[6, \*\] was",
        ),
        ("block_tables", lambda x: x[:, :2].contiguous(), ValueError, "max_context_len: 150 came, 0 to 32"),
        ("num_decodes", lambda _: 9, ValueError, "num_decodes: 9 came, 0 to 6 was expected"),
        ("num_decodes", lambda _: 6, ValueError, "q: 60 rows came, 6: every request is a decode"),
        ("scale", lambda _: 0.0, ValueError, "scale: 0.0 came, a number above 0"),
        ("window", lambda _: -1, ValueError, "window: -1 came"),
        ("key_scale", lambda _: torch.ones(2), ValueError, "key_scale: a tensor came, None: a cache of torch.float32"),
    ],
)
def test_bad_arguments_are_named(name, change, error, words):
    good = arguments()
    operation("paged_attention").check(**good)
    with pytest.raises(error, match=words):
        operation("paged_attention").check(**{**good, name: change(good[name])})


def test_an_fp8_cache_needs_a_scale_for_each_head():
    good = arguments(fp8=True)
    operation("paged_attention").check(**good)
    with pytest.raises(ValueError, match=r"value_scale: shape \[1\] came, \[2\] was expected"):
        operation("paged_attention").check(**{**good, "value_scale": torch.ones(1)})
    with pytest.raises(TypeError, match="key_scale: a tensor is expected, not NoneType"):
        operation("paged_attention").check(**{**good, "key_scale": None})


def test_with_fixed_pieces_a_row_does_not_depend_on_its_neighbours():
    """Bit for bit, in Triton's decode: the same context alone and in a batch."""
    paged_attention = operation("paged_attention").backend("triton")
    batch = dict(replace(DECODES, split_tokens=64).make(torch.Generator().manual_seed(0), torch.device("cpu")))
    together = paged_attention(**batch)
    for row in range(3):
        alone = {key: batch[key][row : row + 1].contiguous() for key in ("q", "context_lens", "block_tables")}
        alone |= {"query_starts": torch.tensor([0, 1], dtype=torch.int32), "num_decodes": 1}
        alone["max_context_len"] = int(alone["context_lens"])
        assert torch.equal(paged_attention(**batch | alone)[0], together[row])
