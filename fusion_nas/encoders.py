"""What a plugin's encoder is made of; `docs/how-to/plugins.md` shows how."""

from search_space.encoders.plugins import PluginEncoder

__all__ = ["PluginEncoder"]
