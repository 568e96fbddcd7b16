"""``silu_mul_backward(grad, x, act)``: the derivative; the code lies in ``silu_mul``."""
