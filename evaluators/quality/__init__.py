"""How accurate and how robust a trained design is."""
