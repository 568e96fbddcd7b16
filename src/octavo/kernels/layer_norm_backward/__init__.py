"""``layer_norm_backward(grad, x, weight, eps, grad_sum)``: the derivatives; the code lies in ``layer_norm``."""
