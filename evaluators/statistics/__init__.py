"""Accuracy and paired comparisons with confidence intervals."""
