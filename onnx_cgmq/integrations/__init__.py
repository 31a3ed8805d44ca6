"""What other tools need to call this package. Each file imports its tool; nothing imports it."""
