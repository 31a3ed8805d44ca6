"""The public functions: quantize, verify, bench, and what they hand back."""
