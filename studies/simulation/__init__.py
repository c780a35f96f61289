"""A study's schedule in simulated time: where it saturates, and when it ends."""
