"""Fusion operators of plugins: found by entry points; one that fails leaves the others alone."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from every_design import SPECS, network_of
from plugin_packages import MAXIMUM, on_path, write_package
from quick_evaluators import demo, design
from tiny import SPACE

import fusion_nas as fn
from evaluators.latency.fusion_work import point_work
from evaluators.onnx.builder import OnnxBuilder
from search_space.design.reading import plugin_key
from search_space.design.rules import canonical, violations
from search_space.network.rewrites import NONE
from search_space.operators import registry
from search_space.operators.definitions import OPERATORS
from search_space.operators.registry import (
    PluginError,
    UnknownOperator,
    fusion_operators,
    is_operator,
    operator_of,
    origins,
)
from search_space.plugins import at_fault
from search_space.space.named import SpaceError, load_space
from studies.report.designs.drawing import draw
from studies.report.designs.notation import notation

FAILING = {
    "breaks": (
        "raise RuntimeError('no licence\\nwas found')",
        "breaks = breaks:Operator",
        "breaks:Operator cannot be loaded (RuntimeError: no licence was found)",
    ),
    "leaves": (
        "raise SystemExit(3)",
        "leaves = leaves:Operator",
        "leaves:Operator cannot be loaded (SystemExit: 3)",
    ),
    "lacks": (
        "",
        "lacks = lacks:Operator",
        "lacks:Operator cannot be loaded (AttributeError: module 'lacks' has no attribute",
    ),
    "own-gated": (MAXIMUM, "gated = own_gated:Maximum", "fusion-nas has a built-in one of this"),
    "shouts": (MAXIMUM, "Max = shouts:Maximum", "its name must be lower-case letters and digits"),
    "counts": ("Three = 3", "counts = counts:Three", "3 is not a subclass of fusion_nas.operators"),
    "empty": ("", "empty = ?!", "?! cannot be loaded ("),
    "half": (
        "from fusion_nas.operators import *\nclass Half(FusionOperator): signature = Signature()",
        "half = half:Half",
        "half:Half cannot be loaded (TypeError: Can't instantiate abstract class Half",
    ),
    "unsigned": (
        "from fusion_nas.operators import *\nclass Free(FusionOperator): pass",
        "unsigned = unsigned:Free",
        "Free.signature is not a fusion_nas.operators.Signature",
    ),
}
"""Code and entry of packages that cannot be used, and why."""
TINY = SPACE.replace('"gated"', '"maximum"')


@pytest.fixture(scope="module")
def maximum(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a plugin that works, on the path."""
    folder = tmp_path_factory.mktemp("plugins")
    write_package(folder, "fusion-maximum", MAXIMUM, "maximum = fusion_maximum:Maximum")
    with on_path(folder):
        yield folder


@pytest.fixture
def failing(maximum: Path, tmp_path: Path) -> Iterator[None]:
    for name, (code, entry, _) in FAILING.items():
        write_package(tmp_path, name, code, entry)
    with on_path(tmp_path):
        yield
    for name in FAILING:
        sys.modules.pop(name.replace("-", "_"), None)


def test_without_plugins_there_are_the_built_in_operators() -> None:
    with on_path():
        assert tuple(fusion_operators()) == OPERATORS and fn.plugins() == ()


def test_an_installed_plugin_is_found_with_its_package(maximum: Path) -> None:
    (found,) = fn.plugins()
    assert found == fn.Plugin(
        "fusion_nas.operators", "maximum", "fusion-maximum", "1.0", "fusion_maximum"
    )
    assert tuple(fusion_operators()) == (*OPERATORS, "maximum")
    assert type(operator_of("maximum")).__name__ == "Maximum"


@pytest.mark.parametrize("name", FAILING)
def test_a_plugin_that_fails_is_named_and_the_others_work(failing: None, name: str) -> None:
    (found,) = (each for each in fn.plugins() if each.package == name)
    assert found.failure.startswith(FAILING[name][2])
    assert is_operator("maximum") and operator_of("gated").__module__.startswith("search_space")
    assert set(fusion_operators()) == {*OPERATORS, "maximum"}


def test_of_two_plugins_of_one_name_neither_is_used(maximum: Path, tmp_path: Path) -> None:
    write_package(tmp_path, "other", MAXIMUM, "maximum = other:Maximum")
    with on_path(tmp_path):
        failures = {each.package: each.failure for each in fn.plugins()}
        assert not is_operator("maximum")
    assert failures == {
        "fusion-maximum": "other has one of this name too; uninstall one",
        "other": "fusion-maximum has one of this name too; uninstall one",
    }


def test_a_built_in_name_looks_for_no_plugin(maximum: Path) -> None:
    registry._plugins.cache_clear()
    operator_of("gated")
    assert is_operator("gated") and origins(["gated", "sum"]) == {}
    assert registry._plugins.cache_info().currsize == 0


def test_plugins_are_found_without_torch(maximum: Path) -> None:
    program = (
        "import sys\nfrom search_space.operators.registry import operator_of\n"
        "operator_of('maximum')\nprint('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(maximum)!r})\n{program}"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def space_file(folder: Path, text: str = TINY) -> str:
    file = folder / "tiny.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_a_space_offers_the_operator_of_a_plugin(maximum: Path, tmp_path: Path) -> None:
    space = load_space(space_file(tmp_path))
    drawn = [space.sample(random.Random(seed)) for seed in range(40)]
    used = [each for each in drawn if any(p.operator == "maximum" for p in each.points)]
    assert used and all(space.decode(space.encode(each)) == each for each in used)
    assert fn.Genotype.from_json(used[0].as_json()) == used[0]
    assert "maximum" in used[0].describe()


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        ("glued", "operators: 'glued' is none of concatenation, "),
        ("breaks", "operators: 'breaks' of the plugin breaks 1.0 cannot be used: breaks:Operator "),
    ],
)
def test_a_space_with_an_operator_that_is_not_there_is_refused(
    failing: None, tmp_path: Path, operator: str, words: str
) -> None:
    with pytest.raises(SpaceError) as caught:
        load_space(space_file(tmp_path, SPACE.replace('"gated"', f'"{operator}"')))
    assert words in str(caught.value)


def test_a_design_of_a_missing_plugin_is_refused_in_words() -> None:
    lost = design("minimum")
    assert violations(lost, demo().shapes)[0].startswith("operator 'minimum' is none of ")
    with pytest.raises(UnknownOperator, match="install the plugin that has it"):
        canonical(lost, demo().shapes)


def test_a_network_with_the_operator_of_a_plugin_is_built_and_exported(
    maximum: Path, tmp_path: Path
) -> None:
    fused = design("maximum")
    network = network_of(fused)
    text, vision = torch.randn(2, 16), torch.randn(2, 16)
    branch = network.fusion.branches[0]
    assert torch.equal(branch.operator(text, vision), torch.maximum(text, vision))  # type: ignore[union-attr, operator]
    builder = OnnxBuilder(SPECS, demo().shapes, 2, tmp_path, parts=tmp_path / "parts")
    for trained in (None, network):  # composed of parts, and exported whole
        assert builder.build(fused, trained).max_difference < 1e-3
    assert list(point_work(fused, fused.points[0], demo().shapes, NONE))


def test_the_page_explains_the_operator_of_a_plugin(maximum: Path) -> None:
    said = notation([design("maximum")])["maximum"]
    assert said == "The greater of T and I, feature by feature (plugin fusion-maximum 1.0)"
    assert "maximum" in [shape.text for shape in draw(design("maximum")).shapes]


def test_keys_hold_the_version_of_the_plugins_of_a_design(maximum: Path) -> None:
    assert plugin_key(design("maximum")) == {"plugins": {"maximum": "fusion-maximum 1.0"}}
    assert plugin_key(design("gated")) == {}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("raise ValueError('too wide')", r"cannot be made \(ValueError: too wide\)"),
        ("return 3", "is int, not a torch.nn.Module"),
    ],
)
def test_a_plugin_whose_module_cannot_be_made_is_named(
    tmp_path: Path, made: str, words: str
) -> None:
    code = MAXIMUM.replace("return Greater()", made)
    write_package(tmp_path, "broken", code, "breaks-late = broken:Maximum")
    with on_path(tmp_path), pytest.raises(PluginError, match=words) as caught:
        network_of(design("breaks-late"))
    sys.modules.pop("broken")
    assert "'breaks-late' of the plugin broken 1.0" in str(caught.value)
    assert "fusion_nas.testing.check_operator" in caught.value.hint


def test_an_error_in_the_code_of_a_plugin_is_told_from_others(maximum: Path) -> None:
    operator = operator_of("maximum")
    with pytest.raises(TypeError) as caught:
        operator.reference({}, [], 3)  # type: ignore[arg-type]
    found = at_fault(caught.value, fn.plugins())
    assert found is not None and found.origin == "fusion-maximum 1.0"
    later = RuntimeError("the export failed")
    later.__cause__ = caught.value
    assert at_fault(later, fn.plugins()) == found
    with pytest.raises(ZeroDivisionError) as ours:
        print(1 // 0)
    assert at_fault(ours.value, fn.plugins()) is None
