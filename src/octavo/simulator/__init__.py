"""What would happen? The real engine loop, scheduler and KV cache on a virtual clock, over a model of step times."""
