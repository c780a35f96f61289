"""Taps of timm models, compared with what the model's own blocks put out.

For each model, with random weights: every tap of the whole trunk against the output of the block
that timm names for it (`feature_info`), the last one against `forward_features`; and every tap of a
trunk cut at half of its depth against the same. Models that `describe` refuses are shown with its
words. Prints a table in Markdown; exits with 1 where a tap differs.

    python benchmarks/timm_taps.py [--model NAME] [--minutes 10] [--out FILE]
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search_space.design.encoder import EncoderSpec
from search_space.encoders.loading import describe, load_trunk
from search_space.errors import FusionNasError

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
TOLERANCE = 1e-4


def like(output: Any, grid: Tensor) -> Tensor | None:
    """The output of a block in the layout of a feature map; None where it has no such form."""
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
    if output.shape == grid.shape:
        return output
    turned = output.permute(0, 3, 1, 2) if output.ndim == 4 else output
    return turned if turned.shape == grid.shape else None


def difference(one: Tensor, other: Tensor) -> float:
    """Greatest difference, relative to the greatest value of the other."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-6))


def compared(name: str) -> str:
    """A row of the table: how far taps are from blocks, or the words of the refusal."""
    spec = EncoderSpec(name, "vision", "timm", name, "random")
    shape = describe(spec)
    drawn = torch.Generator().manual_seed(0)
    pixels = torch.randn((2, 3, shape.image_size, shape.image_size), generator=drawn)
    trunk: Any = load_trunk(spec, shape.depth, 0).eval()
    blocks: dict[int, Any] = {}
    modules = dict(trunk.model.named_modules())
    for k, info in enumerate(trunk.model.feature_info):
        if module := modules.get(info["module"]):
            module.register_forward_hook(lambda _m, _i, out, k=k: blocks.__setitem__(k, out))
    with torch.no_grad():
        whole = trunk.model.forward_features(pixels)
        given = dict(blocks)
        taps = [grid for grid, _ in trunk.taps(pixels)]
        half = max(1, shape.depth // 2)
        cut: Any = load_trunk(spec, half, 0).eval()
        short = [grid for grid, _ in cut.taps(pixels)]
    apart = max(difference(a, b) for a, b in zip(short, taps[: len(short)], strict=True))
    worst, tried = 0.0, 0
    for k, grid in enumerate(taps[:-1]):
        block = like(given.get(k), grid)
        if block is not None:
            worst, tried = max(worst, difference(grid, block)), tried + 1
    last = like(whole, taps[-1])
    end = None if last is None else difference(taps[-1], last)
    said = "not comparable" if end is None else f"{end:.0e}"
    agree = max(worst, apart, end or 0.0) <= TOLERANCE and end is not None
    return f"| {name} | {len(taps)} | {tried} | {worst:.0e} | {said} | {apart:.0e} | " + (
        "agree |" if agree else "**differ** |"
    )


def main() -> int:
    """Compare as many as there is time for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", action="append")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, help="file for the table, instead of standard output")
    asked = parser.parse_args()
    end_s, rows = time.monotonic() + 60 * asked.minutes, []
    for name in asked.model or MODELS:
        if time.monotonic() > end_s:
            break
        try:
            rows.append(compared(name))
        except FusionNasError as error:
            words = " ".join(str(error).split()).replace("|", "/")
            rows.append(f"| {name} | | | | | | refused: {words} |")
        except Exception as error:
            rows.append(f"| {name} | | | | | | **{type(error).__name__}**: {str(error)[:100]} |")
        print(rows[-1], file=sys.stderr, flush=True)
    counts = [sum(word in row for row in rows) for word in ("| agree", "refused:", "**")]
    text = (
        "{} agree, {} are refused, {} differ or fail, of {} models.\n\n".format(*counts, len(rows))
        + "| model | taps | blocks compared | taps from blocks | last tap from the output "
        "| cut from whole | |\n|---|---:|---:|---:|---:|---:|---|\n" + "\n".join(rows) + "\n"
    )
    if asked.out:
        asked.out.write_text(text, encoding="utf-8")
    else:
        print(text)
    return int(counts[2] > 0)


if __name__ == "__main__":
    sys.exit(main())
