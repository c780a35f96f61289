"""Taps of text-encoder families and timm models: are they the model's own, and ONNX's too?

Each encoder has random weights. A text encoder, by a tiny configuration: every tap against the
hidden state that the model itself gives. A model of timm, on pictures as small as it takes
(`SIZES`): every tap of the whole trunk against the output of the block that timm names for it
(`feature_info`), the last one against `forward_features`, and every tap of a trunk cut at half of
its depth against the same tap of the whole. Of both: all taps of the exported ONNX graph against
torch, and a design that reads the last tap built as studies build it. Encoders that are refused are
shown with the words. Those of more parameters than `--most` are left out.

Writes JSON and, beside it, a table (.md). Goes on where it was cut off. Exits with 1 where a tap
differs or anything but a refusal in words came.

    python benchmarks/encoder_table.py --out FILE.json [--name NAME] [--most 30e6] [--minutes 30]
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT)]

from text_families import CAUSAL, MORE, READ, REFUSED, spec_of  # noqa: E402

from evaluators.onnx.builder import OnnxBuilder  # noqa: E402
from evaluators.onnx.export import export  # noqa: E402
from search_space.design.encoder import EncoderShape, EncoderSpec  # noqa: E402
from search_space.design.genotype import FusionPoint, Genotype  # noqa: E402
from search_space.encoders.features import Feature, Form  # noqa: E402
from search_space.encoders.libraries import import_timm, import_transformers  # noqa: E402
from search_space.encoders.loading import describe, load_trunk  # noqa: E402
from search_space.errors import FusionNasError  # noqa: E402

MODELS = (
    "test_byobnet", "test_convnext", "test_convnext2", "test_convnext3", "test_efficientnet",
    "test_efficientnet_evos", "test_efficientnet_gn", "test_efficientnet_ln", "test_mambaout",
    "test_nfnet", "test_resnet", "test_vit", "test_vit2", "test_vit3", "test_vit4",
    "mobilenetv1_100", "mobilenetv2_050", "mobilenetv3_small_050", "mobilenetv3_large_100",
    "mobilenetv4_conv_small_050", "mobilenetv4_hybrid_medium", "lcnet_050", "tinynet_e",
    "mnasnet_small", "fbnetc_100", "ghostnet_050", "ghostnetv2_100", "efficientnet_b0",
    "efficientnet_lite0", "tf_efficientnetv2_b0", "mixnet_s", "resnet10t", "resnet14t", "resnet18",
    "resnetv2_50", "legacy_seresnet18", "regnetx_002", "regnety_002",
    "densenet121", "dla34", "hardcorenas_a", "hrnet_w18_small", "repvgg_a0", "repghostnet_050",
    "repvit_m0_9", "mobileone_s0", "fastvit_t8", "convnext_atto", "convnextv2_atto",
    "edgenext_xx_small", "mobilevit_xxs", "mobilevitv2_050", "efficientformer_l1",
    "efficientformerv2_s0", "efficientvit_b0", "efficientvit_m0", "levit_128s", "levit_conv_128s",
    "swiftformer_xs", "tiny_vit_5m_224", "vit_tiny_patch16_224", "vit_small_patch32_224",
    "vit_pwee_patch16_reg1_gap_256", "deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_224", "eva02_tiny_patch14_224", "beit_base_patch16_224",
    "cait_xxs24_224", "xcit_nano_12_p16_224", "pvt_v2_b0", "poolformer_s12", "caformer_s18",
    "convformer_s18", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256",
    "swin_s3_tiny_224", "maxvit_rmlp_pico_rw_256", "coatnet_nano_rw_224", "coat_lite_tiny",
    "convmixer_768_32", "mixer_s32_224", "resmlp_12_224", "gmlp_ti16_224", "nextvit_small",
    "inception_next_atto", "starnet_s1", "shvit_s1", "mambaout_femto", "rdnet_tiny",
    "hgnet_tiny", "hgnetv2_b0", "hiera_tiny_224", "focalnet_tiny_srf", "davit_tiny", "nest_tiny",
    "gcvit_xxtiny", "mvitv2_tiny", "visformer_tiny", "volo_d1_224", "vovnet39a", "selecsls42",
    "xception41", "inception_v4", "vgg11", "crossvit_tiny_240", "tnt_s_patch16_224",
    "twins_pcpvt_small", "pit_ti_224", "convit_tiny",
)  # fmt: skip
SIZES = (64, 128, 0)
"""Pixels a side that a model of timm is tried at, in this order; 0 is its own size."""
TOLERANCE = 1e-4
TOKENS = 13
FAMILIES: Mapping[str, Mapping[str, Any]] = {**READ, **CAUSAL, **MORE, **REFUSED}
COUNTED = ("agree", "refused", "skipped", "differ", "failed")


class AllTaps(nn.Module):
    """A trunk that gives the whole content of all of its taps."""

    def __init__(self, trunk: nn.Module, shape: EncoderShape) -> None:
        super().__init__()
        form: Form = "tokens" if shape.modality == "text" else "grid"
        wanted = [Feature(shape.modality, tap, form) for tap in range(1, shape.depth + 1)]
        if shape.has_class_token:
            wanted.append(Feature(shape.modality, shape.depth, "cls"))
        self.trunk, self.wanted = trunk, tuple(wanted)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One tensor a tap, then the last one's class token, if any."""
        found = self.trunk(*inputs, self.wanted)
        return tuple(found[feature] for feature in self.wanted)


def like(output: Any, grid: Tensor, channels_last: bool) -> Tensor | None:
    """The output of a block in the layout of a feature map; None where it has no such form.

    `channels_last` says which layout a map of as many channels as rows and columns has.
    """
    if not isinstance(output, Tensor):
        output = output[0] if isinstance(output, (tuple, list)) and output else None
    if not isinstance(output, Tensor):
        return None
    if output.ndim == 3:
        if output.shape[1] == grid.shape[1] and output.shape[2] == grid[0, 0].numel():
            return output.reshape(grid.shape)
        patches = output[:, -grid[0, 0].numel() :]
        if patches.shape[1:] != (grid[0, 0].numel(), grid.shape[1]):
            return None
        return patches.transpose(1, 2).reshape(grid.shape)
    cube = len({*grid.shape[1:]}) == 1
    if output.shape == grid.shape and not (cube and channels_last):
        return output
    turned = output.permute(0, 3, 1, 2) if output.ndim == 4 else output
    return turned if turned.shape == grid.shape else None


def difference(one: Tensor, other: Tensor) -> float:
    """Greatest difference, relative to the greatest value of the other."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-6))


def text_taps(spec: EncoderSpec, shape: EncoderShape) -> tuple[dict[str, Any], Any, Any]:
    """How far taps are from hidden states; the trunk and an input of batch 1 for it."""
    transformers = import_transformers()
    drawn = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 60, (2, TOKENS), generator=drawn)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(spec.model_type, **spec.config)
    model = transformers.AutoModel.from_config(config).eval()
    model = model.get_encoder() if config.is_encoder_decoder else model
    trunk = AllTaps(load_trunk(spec, shape.depth), shape).eval()
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        taps = trunk(ids, mask)
    states = [*found.hidden_states[1:-1], found.last_hidden_state]
    apart = [difference(a, b) for a, b in zip(taps[: shape.depth], states, strict=True)]
    told = {"compared": len(apart), "from_model": max(apart), "last": apart[-1]}
    return told, trunk, (ids[1:], mask[1:])


def timm_taps(spec: EncoderSpec, shape: EncoderShape) -> tuple[dict[str, Any], Any, Any]:
    """How far taps are from blocks; the trunk and an input of batch 1 for it."""
    drawn = torch.Generator().manual_seed(0)
    pixels = torch.randn((2, 3, shape.image_size, shape.image_size), generator=drawn)
    trunk: Any = load_trunk(spec, shape.depth).eval()
    blocks: dict[int, Any] = {}
    modules = dict(trunk.model.named_modules())
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, k=k: blocks.__setitem__(k, out))
        for k, info in enumerate(trunk.model.feature_info)
        if (module := modules.get(info["module"]))
    ]
    modules_at = [int(i["module"].rpartition(".")[2]) if "blocks." in i["module"] else 0
                  for i in trunk.model.feature_info]  # fmt: skip
    with torch.no_grad():
        whole = trunk.model.forward_features(pixels)
        given = dict(blocks)
        taps = [grid for grid, _ in trunk.taps(pixels)]
        cut: Any = load_trunk(spec, max(1, shape.depth // 2)).eval()
        short = [grid for grid, _ in cut.taps(pixels)]
    for hook in hooks:
        hook.remove()
    apart = []
    for k, grid in enumerate(taps[:-1]):
        output, channels_last = given.get(k), trunk.channels_last
        if output is not None and hasattr(trunk.model, "reroll"):
            # Hiera's blocks keep their tokens in the order of windows.
            output, channels_last = trunk.model.reroll(output, modules_at[k]), True
        block = like(output, grid, channels_last)
        if block is not None:
            apart.append(difference(grid, block))
    last = like(whole, taps[-1], trunk.channels_last)
    told = {
        "compared": len(apart),
        "from_model": max(apart, default=None),
        "last": None if last is None else difference(taps[-1], last),
        "cut": max(difference(a, b) for a, b in zip(short, taps[: len(short)], strict=True)),
    }
    return told, AllTaps(trunk, shape).eval(), (pixels[:1],)


def onnx_difference(name: str, trunk: AllTaps, inputs: tuple[Tensor, ...], folder: Path) -> float:
    """Greatest relative difference of any tap in ONNX Runtime from torch."""
    names = ["input_ids", "attention_mask"] if len(inputs) == 2 else ["pixel_values"]
    outputs = [feature.name for feature in trunk.wanted]
    file = folder / "taps.onnx"
    with torch.no_grad():
        expected = trunk(*inputs)
        export(trunk, inputs, file, names, outputs, {}, f"encoder {name}")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    read = {entry.name for entry in session.get_inputs()}
    fed = {n: t.numpy() for n, t in zip(names, inputs, strict=True) if n in read}
    found = session.run(outputs, fed)
    pairs = zip(found, expected, strict=True)
    return max(difference(torch.from_numpy(np.asarray(a)), b) for a, b in pairs)


def design_difference(spec: EncoderSpec, shape: EncoderShape, folder: Path) -> float:
    """Difference of the logits of a design that reads the last tap, built as studies do."""
    builder = OnnxBuilder(
        {spec.name: spec}, {spec.name: shape}, 3, folder / "networks", parts=folder / "parts"
    )
    text = shape.modality == "text"
    point = FusionPoint(shape.depth if text else 0, 0 if text else shape.depth)
    design = Genotype(
        spec.name if text else None,
        None if text else spec.name,
        16 if text else 0,
        (point,),
        text_pooling="mean" if text else "cls",
    )
    return builder.build(design).max_difference


def specs_of(name: str, kind: str) -> Iterator[EncoderSpec]:
    """The encoder of a row, once for each size that it may be tried at."""
    if kind == "text":
        yield spec_of(name, dict(FAMILIES[name]))
        return
    spec = EncoderSpec(name, "vision", "timm", name, "random")
    for size in SIZES:
        yield spec.at(size) if size else spec


def parameters_of(name: str, kind: str) -> int:
    """Of a model of timm; 0 for a tiny configuration and where timm knows no such model."""
    if kind == "text":
        return 0
    timm = import_timm()
    if name not in timm.list_models():
        return 0
    with torch.device("meta"):
        return sum(p.numel() for p in timm.create_model(name, num_classes=0).parameters())


def row_of(name: str, kind: str, most: float) -> dict[str, Any]:
    """What became of an encoder, at the first size that it takes."""
    row: dict[str, Any] = {"name": name, "kind": kind, "parameters": parameters_of(name, kind)}
    if row["parameters"] > most:
        words = f"{row['parameters'] / 1e6:.0f} million parameters: left out for time"
        return {**row, "outcome": "skipped", "words": words}
    for spec in specs_of(name, kind):
        try:
            with tempfile.TemporaryDirectory(prefix="encoder-") as folder:
                row |= {"outcome": "agree", **tried(spec, Path(folder))}
            row.pop("words", None)
            break
        except FusionNasError as error:
            row |= {"outcome": "refused", "words": " ".join(str(error).split())}
        except Exception as error:
            said = " ".join(str(error).split())[:300]
            row |= {"outcome": "failed", "words": f"{type(error).__name__}: {said}"}
            row["size"] = spec.image_size
            break
    return row


def tried(spec: EncoderSpec, folder: Path) -> dict[str, Any]:
    """All comparisons of one encoder."""
    shape = describe(spec)
    told, trunk, inputs = (text_taps if shape.modality == "text" else timm_taps)(spec, shape)
    told |= {"size": shape.image_size, "taps": shape.depth, "causal": shape.is_causal}
    told["onnx"] = onnx_difference(spec.source, trunk, inputs, folder)
    told["design"] = design_difference(spec, shape, folder)
    apart = [
        told[key] for key in ("from_model", "last", "cut", "onnx") if told.get(key) is not None
    ]
    if max(apart) > TOLERANCE:
        told["outcome"] = "differ"
    return told


def write(out: Path, found: dict[str, Any]) -> None:
    """Write the JSON with its counts, and the table."""
    rows = found["rows"]
    found["counts"] = {
        kind: {what: sum(r["outcome"] == what for r in rows if r["kind"] == kind)
               for what in COUNTED}
        for kind in ("text", "timm")
    }  # fmt: skip
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = "# Encoders: taps and ONNX\n\n" + str(__doc__).partition("\n\nWrites")[0] + "\n\n"
    text += (
        "Figures are greatest differences relative to the greatest value. Those of designs are of "
        "the logits as they are, within the builder's tolerance relative to them: some untrained "
        f"networks put out numbers of 1e13. A tap agrees below {TOLERANCE:.0e}.\n"
    )
    for kind, title in (("text", "Text-encoder families"), ("timm", "Models of timm")):
        own = [row for row in rows if row["kind"] == kind]
        counts = ", ".join(f"{n} {what}" for what, n in found["counts"][kind].items() if n)
        text += (
            f"\n## {title}\n\n{len(own)} tried: {counts}.\n\n| encoder | pixels | taps "
            "| compared | taps from the model's | last tap | cut from whole | ONNX from torch "
            "| design in ONNX | |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---|\n"
        )
        for row in own:
            figures = [
                _told(row.get(key)) for key in ("from_model", "last", "cut", "onnx", "design")
            ]
            counted = [str(row.get(key) or "") for key in ("size", "taps", "compared")]
            words = row["outcome"] + (", causal" if row.get("causal") else "")
            words += f": {row['words'].replace('|', '/')}" if row.get("words") else ""
            text += f"| {' | '.join([row['name'], *counted, *figures, words])} |\n"
    out.with_suffix(".md").write_text(text, encoding="utf-8")


def _told(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}"


def main() -> int:
    """Compare as many as there is time for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--name", action="append", help="these alone, anew")
    parser.add_argument("--most", type=float, default=30e6, help="parameters of a model")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, required=True, help="a .json file; its .md lies beside")
    asked = parser.parse_args()
    timm, transformers = import_timm(), import_transformers()
    found: dict[str, Any] = {
        "python": platform.python_version(),
        **{m.__name__: m.__version__ for m in (torch, transformers, timm, onnxruntime)},
        "rows": [],
    }
    if asked.out.exists():
        found["rows"] = json.loads(asked.out.read_text(encoding="utf-8"))["rows"]
    torch.set_num_threads(1)
    order = [(name, "text") for name in FAMILIES] + [(name, "timm") for name in MODELS]
    done = {(row["name"], row["kind"]) for row in found["rows"]} - {
        each for each in order if each[0] in (asked.name or ())
    }
    end_s = time.monotonic() + 60 * asked.minutes
    for name, kind in order:
        if time.monotonic() > end_s:
            break
        if (name, kind) in done or (asked.name and name not in asked.name):
            continue
        start_s = time.monotonic()
        row = row_of(name, kind, asked.most)
        others = [r for r in found["rows"] if (r["name"], r["kind"]) != (name, kind)]
        found["rows"] = sorted([*others, row], key=lambda r: order.index((r["name"], r["kind"])))
        write(asked.out, found)
        seconds = time.monotonic() - start_s
        said = f"{seconds:.0f} s {name}: {row['outcome']} {row.get('words', '')}"
        print(said, file=sys.stderr, flush=True)
    bad = [row["name"] for row in found["rows"] if row["outcome"] in ("differ", "failed")]
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
