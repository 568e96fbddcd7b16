"""From logits to tokens: each row with its own request's parameters, and only the work that some row needs."""
