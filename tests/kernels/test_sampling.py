"""The GPU's sampler and the executors' draw the same tokens: one random number, one definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import octavo.kernels.ops as K
from octavo.executor.sampling.choose import draw_tokens
from octavo.executor.sampling.truncation import Truncation
from octavo.executor.sampling.uniform import uniform as executor_uniform
from octavo.kernels.registry import operation
from octavo.kernels.sampling.cpu import uniform
from octavo.kernels.sampling.inputs import ROWS
from octavo.kernels.sampling.reference import uniform_reference

CPU = torch.device("cpu")


def test_the_random_number_is_the_executors_own():
    seeds = torch.randint(-(2**63), 2**63 - 1, (50,))
    positions = torch.randint(0, 2**40, (50,))
    got = uniform(seeds, positions)
    wanted = executor_uniform(seeds.numpy().view(np.uint64), positions.numpy().view(np.uint64))
    assert got.tolist() == wanted.tolist()
    assert got.tolist() == [uniform_reference(*pair) for pair in zip(seeds.tolist(), positions.tolist(), strict=True)]


@pytest.mark.parametrize("name", ["plain", "top_k", "top_p", "min_p", "all cuts", "ties"])
def test_the_token_is_the_executors_own(name):
    given = dict(ROWS[name].make(torch.Generator().manual_seed(torch.initial_seed() % 2**31), CPU))
    size = given["logits"].shape[1]
    top_k = torch.where(given["top_k"] > 0, given["top_k"], size).long()
    scaled = (given["logits"] - given["logits"].amax(-1, keepdim=True)) / given["temperature"][:, None]
    wanted = draw_tokens(
        scaled, Truncation(top_k, given["min_p"], given["top_p"]), uniform(given["seeds"], given["positions"])
    )
    assert K.sampling(**given).tolist() == wanted.tolist()
    assert operation("sampling").backend("triton")(**given).tolist() == wanted.tolist()
