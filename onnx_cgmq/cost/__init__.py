"""Counts what widths cost: MACs, bit operations, bytes and table costs; and reads bounds on them.

Learning, reports and the check of the written model all count with these formulas.
"""
