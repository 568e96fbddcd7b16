"""``softmax(x)`` over the last dimension, whatever its size."""
