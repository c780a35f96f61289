"""Data sets of text, one picture and a class: CMU-MOSI, image+text folders, a rendered stand-in."""

from evaluators.data.errors import DataError
from evaluators.data.images import read_image
from evaluators.data.loading import load
from evaluators.data.measures import Share, accuracy, wilson
from evaluators.data.rendering import measured_ceilings, rendered, rendered_folder
from evaluators.data.samples import SPLITS, DataSet, Dropped, Kind, Missing, Sample, Split

__all__ = [
    "SPLITS",
    "DataError",
    "DataSet",
    "Dropped",
    "Kind",
    "Missing",
    "Sample",
    "Share",
    "Split",
    "accuracy",
    "load",
    "measured_ceilings",
    "read_image",
    "rendered",
    "rendered_folder",
    "wilson",
]
