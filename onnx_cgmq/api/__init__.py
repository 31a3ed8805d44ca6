"""The public functions: quantize, verify, bench and explain, and what they return."""
