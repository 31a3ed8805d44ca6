"""Makes written files small: short names, narrow scales, no types or attributes that follow."""
