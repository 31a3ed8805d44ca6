"""Reads and writes model files, of any size and in any state."""
