"""What a plugin's objective is made of; `docs/how-to/plugins.md` shows how."""

from evaluators.objectives import PredictionObjective

__all__ = ["PredictionObjective"]
