"""Every case of every operation on the device, every back end that runs there. Skipped without a GPU."""

from __future__ import annotations

import pytest
import torch

from octavo.kernels.compare import check_against_reference, inputs_of
from octavo.kernels.operation import runs_on
from octavo.kernels.registry import NAMES, operation

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use")


@pytest.mark.parametrize("name", NAMES)
def test_every_back_end_gives_the_reference_on_the_device(name: str, seed: int) -> None:
    op = operation(name)
    backends = [backend for backend in op.backends if "cuda" in runs_on(backend)]
    outcomes = [
        check_against_reference(op, one, case, seed, torch.device("cuda"))
        for one in backends
        for case in inputs_of(name)
    ]
    assert [str(one) for one in outcomes if not one.passed] == [], f"seed {seed}"
