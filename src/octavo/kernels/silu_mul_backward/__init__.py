"""``silu_mul_backward(grad, x, act)``: gradient of ``silu_mul``; code in ``silu_mul``."""
