"""``rms_norm_backward(grad, x, weight, eps, grad_sum)``: gradients of ``rms_norm``; code in ``rms_norm``."""
