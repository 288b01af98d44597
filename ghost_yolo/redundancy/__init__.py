"""Redundancy of feature maps and filters, and its rank correlation with the cost of swapping layers."""
