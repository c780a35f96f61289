"""Several studies side by side: fronts, rank correlation of latencies, designs good on all."""
