"""Which ONNX is written here: what a runtime has to take at least."""

OPSET = 18
IR_VERSION = 8
"""As the exporter chooses it for this operator set; a test holds it against built files."""
