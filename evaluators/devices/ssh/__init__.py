"""Devices over SSH: connection, keys, link, installation of the agent."""
