"""From a design to an ONNX file, whole or composed of subgraphs."""
