"""Which designs there are: decisions, spaces by name, the published designs."""
