"""``layer_norm_gelu(x, weight, bias, eps, approximate)``: layer normalisation and GELU in one pass over the memory."""
