"""``paged_attention(q, keys, values, ...)``: ragged causal attention over a paged KV cache, prefill and decode alike."""
