"""``layer_norm_backward(grad, x, weight, eps, grad_sum)``: gradients of ``layer_norm``; code in ``layer_norm``."""
