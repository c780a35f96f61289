"""What follows a search: readings in turns, fine-tuning, the test split, notes."""
