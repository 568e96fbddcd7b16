"""Gradients through the registered operations, as training uses them, against float64 autograd of the references."""

from __future__ import annotations

import pytest
import torch

import octavo.kernels.ops as K
from octavo.kernels.registry import operation

WITH_BACKWARD = {
    "rms_norm": ("x", "weight"),
    "add_rms_norm": ("x", "residual", "weight"),
    "layer_norm": ("x", "weight", "bias"),
    "add_layer_norm": ("x", "residual", "weight", "bias"),
    "silu_mul": ("x",),
}


def leaves(name):
    torch.manual_seed(len(name))
    return [
        torch.randn(*((5,) if one in ("x", "residual") else ()), 24, requires_grad=True) for one in WITH_BACKWARD[name]
    ]


def weighted_sum(result):
    """A scalar that weighs every element of every output differently."""
    outputs = result if isinstance(result, tuple) else (result,)
    return sum((one * torch.arange(one.numel()).reshape(one.shape).to(one.dtype).sin()).sum() for one in outputs)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", WITH_BACKWARD)
def test_gradients_are_those_of_the_reference(name, compiled):
    inputs = leaves(name)
    function = getattr(K, name)
    if compiled:
        torch._dynamo.reset()
        function = torch.compile(lambda *given: getattr(K, name)(*given), fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(weighted_sum(function(*inputs)), inputs)
    doubles = [one.detach().double().requires_grad_() for one in inputs]
    wanted = torch.autograd.grad(weighted_sum(operation(name).reference(*doubles)), doubles)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)


def test_a_strided_gradient_is_taken():
    x, weight = torch.randn(4, 8, requires_grad=True), torch.ones(8, requires_grad=True)
    K.rms_norm(x, weight).t().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_the_gradient_of_a_rotation_is_the_rotation_back():
    x, angles = torch.randn(5, 3, 12, requires_grad=True), torch.rand(5, 4)
    grad = torch.randn(5, 3, 12)
    (got,) = torch.autograd.grad(K.rotary(x, angles.cos(), angles.sin()), x, grad)
    double = x.detach().double().requires_grad_()
    (wanted,) = torch.autograd.grad(
        operation("rotary").reference(double, angles.cos(), angles.sin()), double, grad.double()
    )
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-6)
