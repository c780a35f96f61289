"""Data sets of text, one picture and a class: CMU-MOSI, MELD, folders of images, a
rendered stand-in."""

from evaluators.data.checking import Checked, check
from evaluators.data.errors import DataError
from evaluators.data.faults import Tally, summary
from evaluators.data.images import read_image
from evaluators.data.loading import data_set, load
from evaluators.data.measures import Share, wilson
from evaluators.data.rendering import measured_ceilings, rendered, rendered_folder
from evaluators.data.samples import (
    SPLITS,
    DataSet,
    Dropped,
    Fault,
    Kind,
    Modality,
    Sample,
    Split,
)

__all__ = [
    "SPLITS",
    "Checked",
    "DataError",
    "DataSet",
    "Dropped",
    "Fault",
    "Kind",
    "Modality",
    "Sample",
    "Share",
    "Split",
    "Tally",
    "check",
    "data_set",
    "load",
    "measured_ceilings",
    "read_image",
    "rendered",
    "rendered_folder",
    "summary",
    "wilson",
]
