"""Calibration and learning of gates, ranges and weights under the bound."""
