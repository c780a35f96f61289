"""The agent's home: artifacts, results, engines, whose turn it is."""
