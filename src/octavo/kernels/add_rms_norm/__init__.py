"""``add_rms_norm(x, residual, weight, eps)``: a pre-norm layer's residual and norm in one pass; the code lies in ``rms_norm``."""
