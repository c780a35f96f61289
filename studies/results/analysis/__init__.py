"""What the rows of a study say together: certainty, gain and cost of choices, time."""
