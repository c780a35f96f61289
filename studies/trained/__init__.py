"""What is done with one trained trial: export it, stress it."""
