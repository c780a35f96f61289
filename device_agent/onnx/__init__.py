"""ONNX files read and checked without a runtime."""
