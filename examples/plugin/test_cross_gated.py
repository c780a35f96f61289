"""What every operator must do; run with `pytest` in this folder."""

from fusion_nas_cross_gated import CrossGated

from fusion_nas.testing import check_operator


def test_cross_gated() -> None:
    check_operator(CrossGated())
