"""Trunks and shapes of encoders of plugins, checked against what the plugins declare."""

from pathlib import Path

import torch
from torch import Tensor, nn

from search_space.design.encoder import EncoderError, EncoderShape, EncoderSpec
from search_space.encoders.configs import first_line
from search_space.encoders.plugins import PluginEncoder, encoder_origins, plugin_encoder
from search_space.encoders.sounds import sound_input
from search_space.encoders.trunks import MapTrunk, PluginMapTrunk, PluginTextTrunk

CHECK = "fusion_nas.testing.check_encoder says what a plugin must do"
TOKENS = 8
"""Most texts that an encoder is run on to find out whether it is causal."""


def plugin_trunk(spec: EncoderSpec, depth: int, seed: int = 0) -> nn.Module:
    """Return the encoder up to tap `depth`, in evaluation mode.

    First weights are drawn from `seed`. Raises EncoderError, with the plugin's name, where it
    cannot be built or its weights are no finite numbers.
    """
    encoder, folder = _encoder(spec)
    full = len(encoder.widths)
    if not 1 <= depth <= full:
        raise EncoderError(f"{spec.modality} tap {depth} of {spec.name}: it has taps 1 to {full}")
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        model = encoder.build(depth, folder)
    except Exception as error:
        raise _fault(spec, f"it cannot be built ({_said(error)})") from error
    finally:
        torch.random.set_rng_state(state)
    if not isinstance(model, nn.Module):
        raise _fault(spec, f"build gives a {type(model).__name__}, not a torch.nn.Module")
    if spec.weights == "pretrained":
        check_finite(spec, model)
    return (PluginTextTrunk if spec.modality == "text" else PluginMapTrunk)(model).eval()


def plugin_shape(spec: EncoderSpec) -> EncoderShape:
    """Return depth, widths and limits of an encoder of a plugin, found by running it.

    Raises EncoderError, with the plugin's name, where it does not give what it declares.
    """
    encoder, _ = _encoder(spec)
    if spec.image_size not in (0, encoder.image_size):
        raise EncoderError(
            f"vision encoder {spec.base}: it reads pictures of {encoder.image_size} pixels, not of "
            f"{spec.image_size}: leave --image-size out"
        )
    if spec.merging:
        raise EncoderError(
            f"vision encoder {spec.base}: an encoder of a plugin does not merge tokens: leave "
            "image_merging out for it"
        )
    trunk = plugin_trunk(spec, len(encoder.widths))
    try:
        with torch.no_grad():
            if isinstance(trunk, PluginTextTrunk):
                return _text_shape(spec, encoder, trunk.model)
            assert isinstance(trunk, MapTrunk)
            return _map_shape(spec, encoder, trunk)
    except EncoderError:
        raise
    except Exception as error:
        raise _fault(spec, f"it cannot be run ({_said(error)})") from error


def check_finite(spec: EncoderSpec, model: nn.Module) -> None:
    """Raise EncoderError for weights that are no finite numbers."""
    # Buffers may be infinite on purpose, as masks are.
    bad = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    bad += [name for name, buffer in model.named_buffers() if buffer.isnan().any()]
    if bad:
        raise EncoderError(
            f"{spec.modality} encoder {spec.source}: {bad[0]} holds weights that are not finite "
            f"numbers ({len(bad)} of its tensors do); give another folder or encoder"
        )


def _text_shape(spec: EncoderSpec, encoder: PluginEncoder, model: nn.Module) -> EncoderShape:
    ids = torch.arange(min(TOKENS, encoder.max_tokens)).remainder(encoder.vocabulary).unsqueeze(0)
    other = ids.roll(1, 1)
    other[:, 0] = ids[:, 0]
    states, others = (model(each, torch.ones_like(each)) for each in (ids, other))
    _check_widths(spec, encoder, [each.shape[-1] for each in states])
    return EncoderShape(
        spec.name,
        "text",
        encoder.widths,
        max_tokens=encoder.max_tokens,
        is_causal=bool((states[-1][:, 0] == others[-1][:, 0]).all()),
    )


def _map_shape(spec: EncoderSpec, encoder: PluginEncoder, trunk: MapTrunk) -> EncoderShape:
    sound = spec.modality == "audio"
    size = sound_input(spec).size if sound else (3, encoder.image_size, encoder.image_size)
    taps: list[tuple[Tensor, Tensor | None]] = list(trunk.taps(torch.zeros(1, *size)))
    _check_widths(spec, encoder, [grid.shape[1] for grid, _ in taps])
    return EncoderShape(
        spec.name,
        spec.modality,
        encoder.widths,
        sides=tuple((grid.shape[2], grid.shape[3]) for grid, _ in taps),
        has_class_token=not sound and all(token is not None for _, token in taps),
        image_size=0 if sound else encoder.image_size,
        sound_size=size if sound else (),
    )


def _check_widths(spec: EncoderSpec, encoder: PluginEncoder, found: list[int]) -> None:
    if tuple(found) != encoder.widths:
        raise _fault(spec, f"it declares taps of widths {[*encoder.widths]} and gives {found}")


def _encoder(spec: EncoderSpec) -> tuple[PluginEncoder, Path | None]:
    """Return the plugin's encoder and the folder that its weights are read from."""
    encoder = plugin_encoder(str(spec.model_type))
    if spec.weights == "random":
        return encoder, None
    folder = Path(spec.source)
    if not folder.is_dir():
        raise EncoderError(
            f"{spec.modality} encoder {spec.name}: there is no folder {spec.source} of its "
            f"weights: give {spec.model_type}:FOLDER, or --weights random"
        )
    return encoder, folder


def _fault(spec: EncoderSpec, why: str) -> EncoderError:
    origin = encoder_origins([spec]).get(str(spec.model_type), "")
    named = f"{spec.modality} encoder {spec.model_type!r} of the plugin {origin}"
    return EncoderError(f"{named}: {why}", CHECK)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
