"""``rms_norm(x, weight, eps)``: root-mean-square normalisation (Zhang and Sennrich, 2019)."""
