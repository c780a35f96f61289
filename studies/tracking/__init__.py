"""Knows where finished trials are logged beside the storage: TensorBoard, MLflow, W&B."""
