"""A stored study by its name; found before anything expensive is imported."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna

from studies.config.usage import UsageError
from studies.infra.locations import StorageError, default_url
from studies.infra.storage import open_storage, quiet_optuna
from studies.results.study_outcome import IDENTITY, PROTOCOL, SUBJECT


def find_study(storage: str | None, name: str | None) -> optuna.Study:
    """The study of this name, or the only one there is. Raises StorageError or UsageError."""
    quiet_optuna()
    url = storage or default_url()
    if _is_missing(url):
        raise StorageError(f"storage {url}: there is no such file; run a study first")
    opened = open_storage(url)
    names = optuna.study.get_all_study_names(opened)
    if name is None:
        if len(names) != 1:
            raise UsageError(
                f"{url} holds {len(names)} studies ({', '.join(sorted(names)) or 'none'}): "
                "name one with --name"
            )
        name = names[0]
    if name not in names:
        raise UsageError(
            f"no study {name!r} in {url}: it holds {', '.join(sorted(names)) or 'none'}"
        )
    study = optuna.load_study(study_name=name, storage=opened)
    if SUBJECT not in study.user_attrs:
        raise StorageError(
            f"study {name!r} in {url} was not made by fusion-nas: give another --storage or --name"
        )
    return study


def stored_protocol(url: str, name: str) -> Mapping[str, Any] | None:
    """The training protocol that the study of this name began with, as JSON values.

    None where there is no such study, or one that is not made whole yet. Makes no storage. Raises
    StorageError.
    """
    if _is_missing(url):
        return None
    try:
        study = optuna.load_study(study_name=name, storage=open_storage(url))
    except KeyError:
        return None
    found: Mapping[str, Any] | None = study.user_attrs.get(PROTOCOL)
    return found if IDENTITY in study.user_attrs else None


def _is_missing(url: str) -> bool:
    """Whether the storage is an SQLite file that does not exist."""
    path = url.partition(":///")[2].partition("?")[0]
    return url.startswith("sqlite") and not Path(path).is_file()
