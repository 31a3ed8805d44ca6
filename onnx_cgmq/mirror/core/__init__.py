"""What operators and the compiler share: the registry of operators, types, and programs."""
