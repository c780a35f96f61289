"""Where evaluations, features, weights and the list of devices are kept."""

import os
from pathlib import Path

import platformdirs

from evaluators.devices.registry import Devices


def devices() -> Devices:
    """The devices of this home."""
    return Devices(home() / "devices.json")


def home() -> Path:
    """Where evaluations, features and weights are kept: FUSION_NAS_HOME, or the user's data."""
    given = os.environ.get("FUSION_NAS_HOME")
    return Path(given).expanduser() if given else platformdirs.user_data_path("fusion-nas")
