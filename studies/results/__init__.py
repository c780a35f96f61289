"""What a study found, as plain values: trials, fronts, verdicts, cautions."""
