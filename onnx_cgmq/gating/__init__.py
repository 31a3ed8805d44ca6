"""Gated quantizers: what they compute, which tensors get one, and the pass that inserts them."""
