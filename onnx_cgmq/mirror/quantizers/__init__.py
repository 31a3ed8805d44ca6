"""Gated quantizers in torch, their ranges, and their plans."""
