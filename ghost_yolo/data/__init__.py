"""Data sets that prepare themselves at first use."""
