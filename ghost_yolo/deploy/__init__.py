"""Export with proof."""
