"""Calibrates ranges, and learns gates, ranges and weights under the bound."""
