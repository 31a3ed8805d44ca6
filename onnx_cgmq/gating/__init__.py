"""Gated quantizers: what they are, where they go, and the pass that puts them there."""
