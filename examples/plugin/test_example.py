"""What every plugin must do; run with `pytest` in this folder."""

from fusion_nas_example.cross_gated import CrossGated
from fusion_nas_example.onnx_reference import OnnxReference
from fusion_nas_example.separable import Separable
from fusion_nas_example.stripes import Stripes

from fusion_nas.testing import check_data_set, check_encoder, check_operator, check_runtime


def test_cross_gated() -> None:
    check_operator(CrossGated())


def test_separable() -> None:
    check_encoder(Separable())


def test_stripes() -> None:
    check_data_set(Stripes())


def test_onnx_reference() -> None:
    check_runtime(OnnxReference())
