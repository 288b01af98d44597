"""ONNX export, verified against PyTorch."""
