"""A stored study by its name; found before anything expensive is imported."""

from pathlib import Path

import optuna

from studies.config.options import UsageError
from studies.infra.locations import StorageError, default_url
from studies.infra.storage import open_storage, quiet_optuna
from studies.results.trial_record import SUBJECT


def find_study(storage: str | None, name: str | None) -> optuna.Study:
    """The study of this name, or the only one there is. Raises StorageError or UsageError."""
    quiet_optuna()
    url = storage or default_url()
    file = Path(url.partition(":///")[2])
    if url.startswith("sqlite") and not file.is_file():
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
