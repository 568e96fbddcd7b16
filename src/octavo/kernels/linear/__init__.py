"""``linear(x, weight, bias)``: the matrix products, where nearly all the time goes."""

from octavo.kernels.linear.cpu import linear

__all__ = ["linear"]
