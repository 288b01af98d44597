"""Exported files: checked against PyTorch."""
