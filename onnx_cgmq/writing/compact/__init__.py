"""Makes written files small: names, scales, types and attributes."""
