"""Files, console, machine."""
