"""The model and data of the study of fusion operators."""
