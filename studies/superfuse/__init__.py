"""The study of fusion operators on paired embeddings."""
