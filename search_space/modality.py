"""What a network can read: text, pictures and sound."""

from typing import Literal, get_args

Modality = Literal["text", "vision", "audio"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)
CALLED: dict[Modality, str] = {"text": "text", "vision": "image", "audio": "sound"}
"""What one input of each is called."""
