"""Every back end of every operation against its float64 reference; without a GPU, Triton's interpreted, CUDA's emulated."""

from __future__ import annotations

import pytest
import torch

from octavo.kernels.compare import check_against_reference, inputs_of
from octavo.kernels.registry import NAMES, operation

HERE = ("torch", "triton", "cuda")  # back ends whose names begin so run without a GPU


@pytest.mark.parametrize(
    ("name", "backend", "case"),
    [
        pytest.param(name, backend, case, id=f"{name}-{backend}-{case.name}")
        for name in NAMES
        for backend in operation(name).backends
        if backend.startswith(HERE)
        for case in inputs_of(name)
        if case.small
    ],
)
def test_a_back_end_gives_the_reference(name, backend, case, seed):
    outcome = check_against_reference(operation(name), backend, case, seed, torch.device("cpu"))
    assert outcome.passed, f"{outcome} with seed {seed}"
