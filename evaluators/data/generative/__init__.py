"""The probability models that synthetic data are drawn from, with their accuracy ceilings."""
