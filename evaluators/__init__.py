"""What a design costs and is worth: data, training, ONNX, latency, and the store of it all."""
