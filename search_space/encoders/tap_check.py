"""Taps of a text encoder compared with the hidden states that the model itself gives."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from search_space.design.encoder import EncoderError, EncoderSpec
from search_space.design.genotype import MIN_TEXT_TOKENS
from search_space.encoders.configs import first_line
from search_space.encoders.features import Feature
from search_space.encoders.trunks import TextTrunk, layers_of

TOLERANCE = 1e-4
"""Greatest difference from a hidden state, relative to the larger of 1 and its largest value."""
_TOKENS = 21
"""Of the texts that are tried: of odd length, so that padding to a window is found out."""
_checked: dict[EncoderSpec, bool] = {}


def check_text_taps(spec: EncoderSpec, model: nn.Module) -> bool:
    """Return whether a text encoder is causal: its first token then says nothing of the text.

    Its weights are run on two texts of random tokens, once a process; a model on the meta device,
    which has shapes and no values, is not checked. Raises EncoderError where what its layers put
    out is not what the model gives as their hidden states.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        return False
    if spec not in _checked:
        _checked[spec] = _check(spec, model)
    return _checked[spec]


def _check(spec: EncoderSpec, model: nn.Module) -> bool:
    config, layers = cast(Any, model).config, layers_of(model)[2]
    length = min(_TOKENS, int(getattr(config, "max_position_embeddings", _TOKENS) or _TOKENS) - 4)
    drawn = torch.Generator().manual_seed(0)
    ids = torch.randint(0, config.vocab_size, (2, max(2, length)), generator=drawn)
    other = ids.clone()
    other[:, 1:] = torch.randint(0, config.vocab_size, other[:, 1:].shape, generator=drawn)
    mask = torch.ones_like(ids)
    mask[1, -(length // 3) or None :] = 0
    taps: list[Tensor] = []

    def keep(_layer: nn.Module, _inputs: Any, output: Any) -> None:
        taps.append(output if isinstance(output, Tensor) else output[0])

    pooler = getattr(model, "pooler", None)
    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        with torch.no_grad():
            found = model.eval()(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            states, first = list(found.hidden_states), taps[:]
            if pooler is not None:
                cast(Any, model).pooler = None  # as trunks have it
            again = model(input_ids=other, attention_mask=torch.ones_like(ids))
            whole = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except Exception as error:  # architectures fail with different errors
        raise _refused(
            spec, model, f"it cannot be run on ids and a mask ({first_line(error)})"
        ) from error
    finally:
        if pooler is not None:
            cast(Any, model).pooler = pooler
        for hook in hooks:
            hook.remove()
    if len(states) - 1 != len(layers) or len(first) != len(layers):
        raise _refused(spec, model, f"{len(layers)} layers give {len(states) - 1} hidden states")
    # The last tap is the model's own output, after its final norm.
    for tap, (ours, theirs) in enumerate(zip(first[:-1], states[1:-1], strict=True), 1):
        if not _agree(ours, theirs):
            raise _refused(spec, model, f"layer {tap} puts out other values or extents")
    expected = (*ids.shape, config.hidden_size)
    if tuple(found.last_hidden_state.shape) != expected:
        raise _refused(spec, model, f"its output is not of shape {expected}")
    moved = again.last_hidden_state[:, 0] - whole.last_hidden_state[:, 0]
    return bool((moved == 0).all())


def goes_on_from_taps(model: nn.Module, depth: int) -> bool:
    """Whether the last layer of a text encoder, run from the tap before it, gives what it gave.

    Only a trunk for which it does can be adapted: some models hand their layers more than states,
    or project their embeddings. The model, of `depth` layers and with weights, cannot be used
    afterwards.
    """
    if depth < 2 or not hasattr(model, "embeddings"):
        return False
    trunk = TextTrunk(model, depth).eval()
    drawn = torch.Generator().manual_seed(0)
    ids = torch.randint(
        0, cast(Any, model).config.vocab_size, (2, MIN_TEXT_TOKENS), generator=drawn
    )
    mask = torch.ones_like(ids)
    mask[1, MIN_TEXT_TOKENS // 2 :] = 0
    before, last = (Feature("text", tap, "tokens") for tap in (depth - 1, depth))
    try:
        with torch.no_grad():
            whole = trunk(ids, mask, (before, last))
            trunk.go_on_from(depth - 1)
            again = trunk(whole[before], mask, (last,))
    except Exception:  # architectures fail with different errors
        return False
    return _agree(again[last][mask.bool()], whole[last][mask.bool()])


def _agree(ours: Tensor, theirs: Tensor) -> bool:
    if ours.shape != theirs.shape:
        return False
    return bool((ours - theirs).abs().max() <= TOLERANCE * max(1.0, float(theirs.abs().max())))


def _refused(spec: EncoderSpec, model: nn.Module, why: str) -> EncoderError:
    return EncoderError(
        f"text encoder {spec.source}: taps of its layers are not the hidden states that "
        f"{type(model).__name__} gives ({why}); choose a BERT-like encoder"
    )
