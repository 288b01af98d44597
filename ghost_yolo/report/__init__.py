"""Reports: measure -> rows -> render."""
