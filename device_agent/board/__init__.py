"""What the device is and the state it is in."""
