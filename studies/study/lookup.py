"""A stored study by its name; found before anything expensive is imported."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage

from search_space.encoders.plugins import is_encoder
from search_space.encoders.plugins import why_unknown as why_no_encoder
from search_space.operators.registry import is_operator, why_unknown
from search_space.redaction import redacted_url
from search_space.space.space import SearchSpace
from studies.config.settings import Settings
from studies.config.usage import UsageError
from studies.infra.locations import StorageError, default_url, journal_path, sqlite_url
from studies.infra.storage import open_storage, quiet_optuna
from studies.results.study_outcome import (
    ENCODER_PLUGINS,
    IDENTITY,
    PLUGINS,
    PROTOCOL,
    SETTINGS,
    SUBJECT,
)


def find_study(storage: str | None, name: str | None) -> optuna.Study:
    """The study of this name, or the only one there is. Raises StorageError or UsageError."""
    quiet_optuna()
    url = storage or default_url()
    shown = redacted_url(url)
    if is_missing(url):
        raise StorageError(f"storage {shown}: there is no such file; run a study first")
    opened = open_storage(url)
    names = optuna.study.get_all_study_names(opened)
    if name is None:
        if len(names) != 1:
            raise UsageError(
                f"{shown} holds {len(names)} studies ({', '.join(sorted(names)) or 'none'}): "
                "name one with --name"
            )
        name = names[0]
    if name not in names:
        raise UsageError(
            f"no study {name!r} in {shown}: it holds {', '.join(sorted(names)) or 'none'}"
        )
    study = optuna.load_study(study_name=name, storage=opened)
    if SUBJECT not in study.user_attrs:
        raise StorageError(
            f"study {name!r} in {shown} was not made by fusion-nas: give another --storage or "
            "--name"
        )
    _check_plugins(study, shown)
    return study


def default_name(settings: Settings, data: str, space: SearchSpace) -> str:
    """The name of a study for which `--name` gives none: of preset, data and space.

    Version 0.1.0 called the built-in faces "rendered": where the storage has a study of that name,
    it is the one. Raises StorageError.
    """
    if settings.name:
        return settings.name
    name, earlier = (f"{settings.preset.name}-{each}-{space.name}" for each in (data, "rendered"))
    named_so = data == "faces" and settings.data.built_in is not None
    return earlier if named_so and earlier in study_names(settings.storage) else name


def study_names(storage: str) -> list[str]:
    """Names of the studies of a storage, none where it is a file that is not there."""
    return [] if is_missing(storage) else optuna.study.get_all_study_names(open_storage(storage))


def _check_plugins(study: optuna.Study, shown: str) -> None:
    """Raise StorageError for operators and encoders of plugins that are not installed or fail."""
    plugins = (study.user_attrs.get(IDENTITY) or {}).get(PLUGINS) or {}
    for name, origin in plugins.items():
        if not is_operator(name):
            raise StorageError(
                f"study {study.study_name!r} in {shown}: its operator {why_unknown(name, origin)}"
            )
    encoders = (study.user_attrs.get(IDENTITY) or {}).get(ENCODER_PLUGINS) or {}
    for name, origin in encoders.items():
        if not is_encoder(name):
            why = why_no_encoder(name, origin)
            raise StorageError(f"study {study.study_name!r} in {shown}: its encoder {why}")


def find_named_study(storage: str | None, given: str) -> optuna.Study:
    """The study of NAME or NAME@STORAGE, where an SQLite file or a journal is a storage too.

    Raises StorageError or UsageError.
    """
    scheme = given.find("://")
    # The user and password of a URL end with an @ too.
    at = given.rfind("@", 0, scheme if scheme >= 0 else len(given))
    if at < 0:
        return find_study(storage, given)
    name, own = given[:at], given[at + 1 :]
    if scheme < 0:
        own = sqlite_url(own)
    return find_study(own, name or None)


def remove_stored_passwords(storage: BaseStorage) -> None:
    """Remove the storage's password from the settings of all studies; version 0.1.0 stored it."""
    for name in optuna.study.get_all_study_names(storage):
        remove_stored_password(optuna.load_study(study_name=name, storage=storage))


def remove_stored_password(study: optuna.Study) -> None:
    """Remove the storage's password from the settings of a study; version 0.1.0 stored it."""
    settings: dict[str, Any] = study.user_attrs.get(SETTINGS) or {}
    url = settings.get("storage")
    if isinstance(url, str) and redacted_url(url) != url:
        study.set_user_attr(SETTINGS, {**settings, "storage": redacted_url(url)})


def stored_protocol(url: str, name: str) -> Mapping[str, Any] | None:
    """The training protocol that the study of this name began with, as JSON values.

    None where there is no such study, or one that is not made whole yet. Makes no storage. Raises
    StorageError.
    """
    if is_missing(url):
        return None
    try:
        study = optuna.load_study(study_name=name, storage=open_storage(url))
    except KeyError:
        return None
    found: Mapping[str, Any] | None = study.user_attrs.get(PROTOCOL)
    return found if IDENTITY in study.user_attrs else None


def is_missing(url: str) -> bool:
    """Whether the storage is an SQLite file or a journal that does not exist."""
    if (journal := journal_path(url)) is not None:
        return not journal.is_file()
    path = url.partition(":///")[2].partition("?")[0]
    return url.startswith("sqlite") and not Path(path).is_file()
