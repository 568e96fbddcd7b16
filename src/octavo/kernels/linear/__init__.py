"""``linear(x, weight, bias)``: a layer's matrix product, ``x W^T + b``, where nearly all of a step's time goes."""
