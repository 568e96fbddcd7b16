"""What the GPU back ends share: ahead-of-time compilation, the cubin cache, tuned configurations, timing."""
