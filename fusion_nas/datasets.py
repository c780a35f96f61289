"""What a plugin's data set is made of; `docs/how-to/plugins.md` shows how."""

from evaluators.data.plugins import PluginDataSet, Row

__all__ = ["PluginDataSet", "Row"]
