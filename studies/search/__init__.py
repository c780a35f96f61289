"""The search loop: ask, decode, time, train, tell."""
