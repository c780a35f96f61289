"""Data of text, picture, sound and a class: CMU-MOSI, MELD, folders of images, two drawn sets."""

from evaluators.data.checking import Checked, check
from evaluators.data.errors import DataError
from evaluators.data.faults import Tally, summary
from evaluators.data.loading import data_set, load
from evaluators.data.measures import Share, wilson
from evaluators.data.media.images import read_image
from evaluators.data.media.waves import longest_seconds, read_sound
from evaluators.data.samples import (
    BOTH,
    DRAWN,
    SPLITS,
    Damage,
    DataSet,
    Dropped,
    Fault,
    Kind,
    Sample,
    Split,
    most_frequent_share,
)
from evaluators.data.synthetic.built_in import BUILT_IN, BUILT_IN_PREFIX, FACES, BuiltIn
from evaluators.data.synthetic.face_set.data_set import faces_data, faces_folder, measured_ceilings
from evaluators.data.synthetic.shape_set.shapes import shapes_data, shapes_folder
from search_space.modality import Modality

__all__ = [
    "BOTH",
    "BUILT_IN",
    "BUILT_IN_PREFIX",
    "DRAWN",
    "FACES",
    "SPLITS",
    "BuiltIn",
    "Checked",
    "Damage",
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
    "faces_data",
    "faces_folder",
    "load",
    "longest_seconds",
    "measured_ceilings",
    "most_frequent_share",
    "read_image",
    "read_sound",
    "shapes_data",
    "shapes_folder",
    "summary",
    "wilson",
]
