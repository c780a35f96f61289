"""What holds for every evaluator."""

from quick_evaluators import design

from evaluators.evaluation import Evaluator
from search_space.design.genotype import Genotype


class EvaluatorContract:
    """Every evaluator keeps this; a subclass gives the evaluator as a fixture."""

    def test_the_key_is_known_before_and_the_same_after(self, evaluator: Evaluator) -> None:
        before = evaluator.key(design())
        result = evaluator.evaluate(design())
        assert result.key == before == evaluator.key(design())
        assert result.kind and result.measures and not result.infeasible

    def test_equal_designs_have_equal_keys(self, evaluator: Evaluator) -> None:
        twin = Genotype.from_json(design().as_json())
        assert twin is not design() and evaluator.key(twin) == evaluator.key(design())

    def test_another_design_has_another_key(self, evaluator: Evaluator) -> None:
        others = [
            design(),
            design(text_tokens=24),
            design(precision="int8"),
            design(text_tap=3),
            design(attention_blocks=1),
            design("gated"),
        ]
        assert len({evaluator.key(other) for other in others}) == len(others)

    def test_a_result_is_plain_json(self, evaluator: Evaluator) -> None:
        result = evaluator.evaluate(design())
        assert type(result).from_json(result.as_json()) == result
