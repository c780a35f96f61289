"""Where evaluations, features, weights and the list of devices are kept."""

import os
from pathlib import Path

import platformdirs

from evaluators.devices.registry import Devices
from studies.infra.home.lock import claim


def devices() -> Devices:
    """The devices of this home."""
    return Devices(home() / "devices.json")


def home(make: bool = False) -> Path:
    """Where evaluations, features and weights are kept: FUSION_NAS_HOME, or the user's data.

    From then on this process counts as one that uses it. With `make` the folder is made first;
    raises OSError where that cannot be.
    """
    folder = home_path()
    if make:
        folder.mkdir(parents=True, exist_ok=True)
    claim(folder)
    return folder


def home_path() -> Path:
    """The path of `home`, for whoever only looks at it."""
    given = os.environ.get("FUSION_NAS_HOME")
    return Path(given).expanduser() if given else platformdirs.user_data_path("fusion-nas")
