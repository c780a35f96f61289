"""What holds for every evaluator holds for those of quality and latency."""

from collections.abc import Iterator

import pytest
import torch
from evaluator_contract import EvaluatorContract
from quick_evaluators import BY_STAGE, image_folder, latency, quality

from evaluators.evaluation import Evaluator

torch.set_num_threads(1)


class TestQualityIsAnEvaluator(EvaluatorContract):
    @pytest.fixture(scope="class")
    def evaluator(self, tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
        folder = tmp_path_factory.mktemp("quality")
        return quality(image_folder(folder / "set"), folder / "home")


class TestQualityByStageIsAnEvaluator(EvaluatorContract):
    @pytest.fixture(scope="class")
    def evaluator(self, tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
        folder = tmp_path_factory.mktemp("by-stage")
        return quality(image_folder(folder / "set"), folder / "home", BY_STAGE)


class TestLatencyIsAnEvaluator(EvaluatorContract):
    @pytest.fixture(scope="class")
    def evaluator(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluator]:
        evaluator = latency(tmp_path_factory.mktemp("latency"))
        yield evaluator
        evaluator.close()
