"""``add_layer_norm(x, residual, weight, bias, eps)``: residual and norm in one pass; the code lies in ``layer_norm``."""
