"""The published designs beside the figures of arXiv 2511.21889."""
