"""Configurations of encoders of transformers: of a folder, of the hub's cache, or as given."""

from pathlib import Path
from typing import Any

from search_space.design.encoder import EncoderError, EncoderSpec
from search_space.encoders.libraries import from_pretrained, import_transformers
from search_space.lfs import advice, pointer_in


def config_of(spec: EncoderSpec) -> Any:
    """The configuration of an encoder of transformers. Raises EncoderError where there is none."""
    transformers = import_transformers()
    here = f"{spec.modality} encoder {spec.source}"
    check_folder(spec)
    if spec.model_type is not None and not (
        spec.weights == "pretrained" or Path(spec.source).is_dir()
    ):
        try:
            known = transformers.AutoConfig.for_model(spec.model_type)
        except ValueError as error:
            raise EncoderError(
                f"{here}: transformers knows no model_type {spec.model_type!r}"
            ) from error
        unknown = [key for key in spec.config if not hasattr(known, key)]
        if unknown:
            raise EncoderError(f"{here}: {', '.join(unknown)}: no setting of {spec.model_type}")
        try:
            return transformers.AutoConfig.for_model(spec.model_type, **spec.config)
        except Exception as error:  # each configuration checks itself in its own way
            raise EncoderError(f"{here}: {' '.join(str(error).split())}") from error
    try:
        return from_pretrained("AutoConfig", spec.source)
    except EncoderError:
        raise
    except Exception as error:
        if Path(spec.source).is_dir():
            raise EncoderError(
                f"{here}: no usable config.json there ({first_line(error)}); "
                "give the folder that save_pretrained wrote"
            ) from error
        raise EncoderError(
            f"{here}: neither a folder nor in the hub's cache; "
            f"run `hf download {spec.source}` or give a local folder"
        ) from error


def check_folder(spec: EncoderSpec) -> None:
    """Raises EncoderError for a folder that holds Git-LFS pointers instead of its files."""
    folder = Path(spec.source)
    pointer = pointer_in(folder) if folder.is_dir() else None
    if pointer is not None:
        raise EncoderError(f"{spec.modality} encoder {spec.source}: {advice(pointer)}")


def first_line(error: Exception) -> str:
    """What an error says first, without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
