"""Models by name, opened, profiled, run layer by layer and swapped."""
