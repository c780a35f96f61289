"""The host's side of a device: registry, client, link, pool, check."""
