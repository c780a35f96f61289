"""What holds for each fusion operator, and must for the next one: of two modalities, of three."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from fusion_nas.testing.operators import OPERATOR_CHECKS, WIDTH, OperatorCase, operator_cases
from search_space.design.encoder import EncoderShape
from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.rules import fused_width, violations
from search_space.operators.definitions import FUSION_OPERATORS, Operator

CASES = [
    (name, case) for name, operator in FUSION_OPERATORS.items() for case in operator_cases(operator)
]
"""Every operator with every number of modalities that it fuses."""
EACH = pytest.mark.parametrize(
    ("name", "case"), CASES, ids=[f"{name}-{len(case.modalities)}" for name, case in CASES]
)


@EACH
@pytest.mark.parametrize("check", OPERATOR_CHECKS, ids=lambda check: check.__name__)
def test_every_operator_passes_the_checks_that_plugins_have(
    name: Operator, case: OperatorCase, check: Callable[[OperatorCase], None]
) -> None:
    check(case)


@EACH
def test_it_gives_as_many_features_as_the_rules_say(name: Operator, case: OperatorCase) -> None:
    shapes = {
        "text": EncoderShape("text", "text", (WIDTH,), max_tokens=64),
        "vision": EncoderShape("vision", "vision", (WIDTH,), ((2, 2),)),
        "audio": EncoderShape("audio", "audio", (WIDTH,), ((1, 6),)),
    }
    sound = "audio" if len(case.modalities) == 3 else None
    point = FusionPoint(1, 1, name, audio_tap=len(case.modalities) - 2)
    design = Genotype("text", "vision", 16, (point,), audio_encoder=sound)
    assert violations(design, shapes) == ()
    declared = case.operator.output_width(dict.fromkeys(case.modalities, WIDTH))
    assert fused_width(design, point, shapes) == declared


def test_what_operators_are_is_known_without_torch() -> None:
    program = (
        "import sys\n"
        "from search_space.operators.definitions import FUSION_OPERATORS\n"
        "for operator in FUSION_OPERATORS.values():\n"
        "    operator.output_width({'text': 8, 'vision': 8})\n"
        "    list(operator.work((5, 4), 8))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("False", "")


@pytest.mark.parametrize(
    ("name", "inputs", "expected"),
    [
        ("concatenation", [[1, 2], [3, 4, 5]], [1, 2, 3, 4, 5]),
        ("concatenation", [[1, 2], [3], [4]], [1, 2, 3, 4]),
        ("product", [[1, 2, 3], [5, 7, 11]], [5, 14, 33, 11, 14, 15]),
        ("tensor", [[1, 2], [3, 4, 5]], [3, 4, 5, 6, 8, 10]),
        ("tensor", [[1, 2], [3, 4], [5, 7]], [15, 21, 20, 28, 30, 42, 40, 56]),
        ("sum", [[1, 2], [3, 4]], [4, 6]),
        ("sum", [[1, 2], [3, 4], [5, 6]], [9, 12]),
    ],
)
def test_operators_that_learn_nothing_by_example(
    name: Operator, inputs: list[list[float]], expected: list[float]
) -> None:
    operator = FUSION_OPERATORS[name]
    (reference,) = operator.reference({}, [None] * len(inputs), [np.array([i]) for i in inputs])
    module = operator.module(len(inputs[0]), len(inputs))
    assert reference.tolist() == [expected]
    assert module(*(torch.tensor([i]) for i in inputs)).tolist() == [expected]
