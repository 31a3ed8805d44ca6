"""How well the package does: accuracy, time, memory and size, as tables in the docs."""
