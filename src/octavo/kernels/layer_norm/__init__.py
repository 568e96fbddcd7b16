"""``layer_norm(x, weight, bias, eps)``: mean and variance of each row to 0 and 1 (Ba, Kiros and Hinton, 2016)."""
