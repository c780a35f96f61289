"""One measurement in a child process with limits."""
