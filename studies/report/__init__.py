"""How results are shown: terminal, HTML page, JSON, plots."""
