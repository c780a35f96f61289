"""The preparation of pictures and sounds as ONNX operators before a network."""
