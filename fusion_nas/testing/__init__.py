"""Checks for those who write plugins: each kind of plugin has one function that runs all of them.

::

    from fusion_nas.testing import check_operator

    def test_my_operator():
        check_operator(MyOperator())
"""

from fusion_nas.testing.datasets import check_data_set
from fusion_nas.testing.encoders import check_encoder
from fusion_nas.testing.operators import check_operator
from fusion_nas.testing.runtimes import check_runtime

__all__ = ["check_data_set", "check_encoder", "check_operator", "check_runtime"]
