"""How fast a design is: measured on a device, or predicted from measurements."""
