"""What passes between host and agent: frames, streams, requests, results."""
