"""Optuna's journal: its file, and what workers of several hosts need beside it."""
