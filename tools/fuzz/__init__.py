"""Random networks and broken files, to find errors."""
