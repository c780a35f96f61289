"""What every `Runtime` promises, for the tests of each of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.runtime import Runtime
from device_agent.runtimes import RUNTIMES
from fusion_nas.testing.runtimes import CPU, RUNTIME_CHECKS, RuntimeCase, X, model, request

__all__ = ["CPU", "RuntimeContract", "X", "model", "request"]


class RuntimeContract(ABC):
    """What every `Runtime` promises; a subclass gives it and a provider it surely has."""

    provider: str

    @pytest.fixture
    def scratch(self, tmp_path: Path) -> Path:
        (tmp_path / "scratch").mkdir()
        return tmp_path / "scratch"

    @abstractmethod
    @pytest.fixture
    def runtime(self) -> Runtime:
        """The runtime."""

    def test_the_agent_knows_it_by_its_name(self, runtime: Runtime) -> None:
        assert runtime.describe().name in RUNTIMES

    @pytest.mark.parametrize("check", RUNTIME_CHECKS, ids=lambda check: check.__name__)
    def test_it_keeps_to_the_contract(
        self, runtime: Runtime, tmp_path: Path, check: Callable[[RuntimeCase], None]
    ) -> None:
        check(RuntimeCase(runtime, self.provider, tmp_path))
