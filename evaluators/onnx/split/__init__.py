"""A fused design's graph as encoders and a fusion, so that what was encoded once is not again."""
