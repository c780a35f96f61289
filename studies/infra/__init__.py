"""Storages, worker processes, priorities and signals."""
