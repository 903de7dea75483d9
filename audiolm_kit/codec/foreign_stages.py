"""How far the decoders of transformers' DAC and Mimi look around, so that they can work piece by piece.

B batch, W width, T frames at the rate that a stage reads.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from audiolm_kit.codec.stage import Stage, State, context, stateless


def dac_stages(network: nn.Module) -> list[Stage]:
    """The decoder of a DacModel, in one stage.

    In one, because a ratio that is odd makes its upsampling a sample short, which only the end of a sound may see.
    """
    decoder: Any = network.decoder
    layers = [_centred(decoder.conv1)]
    for block in decoder.block:
        layers.append(_upsampling(block.conv_t1))
        layers += [_centred(unit.conv1) for unit in (block.res_unit1, block.res_unit2, block.res_unit3)]
    layers.append(_centred(decoder.conv2))
    before, behind = context(layers)
    hop = math.prod(layer.hop for layer in layers)

    def whole(frames: Tensor) -> Tensor:
        audio: Tensor = decoder(frames)
        return F.pad(audio, (0, frames.shape[-1] * hop - audio.shape[-1]))

    return [Stage(stateless(whole), kept=before + behind, late=behind * hop, hop=hop)]


def mimi_stages(network: nn.Module) -> list[Stage]:
    """The decoder of a causal MimiModel: upsampling, a transformer that remembers, and convolutions."""
    upsample, transformer, convolutions = _mimi_parts(network)
    return [_causal(upsample), Stage(_remembering(transformer)), *map(_causal, convolutions.layers)]


def _mimi_parts(network: Any) -> tuple[Any, Any, Any]:
    """They stand in a half of their own since transformers 5."""
    inside = network.decoder
    if hasattr(inside, "decoder_seanet"):
        return inside.upsample, inside.decoder_transformer, inside.decoder_seanet
    return network.upsample, network.decoder_transformer, inside


def _remembering(transformer: Any) -> Any:
    """The network of a stage whose state is the transformer's own cache, as far back as it looks."""

    def network(frames: Tensor, state: State) -> tuple[Tensor, Any]:
        cache = None if state is None else state[0]
        made = transformer(frames.transpose(1, 2), past_key_values=cache, use_cache=True, return_dict=True)
        return made.last_hidden_state.transpose(1, 2), (made.past_key_values,)

    return network


def _causal(layer: Any) -> Stage:
    """A layer of Mimi's convolutional decoder."""
    if isinstance(getattr(layer, "conv", None), nn.ConvTranspose1d):
        return Stage(stateless(layer), kept=1, late=layer.padding_left, hop=layer.conv.stride[0])
    # Of a residual block all convolutions, also those that stand beside one another: a few frames more than it needs.
    convs = [each for each in layer.modules() if isinstance(each, nn.Conv1d)]
    kept = sum((each.kernel_size[0] - 1) * each.dilation[0] for each in convs)
    mirrored = any(getattr(each, "pad_mode", "") == "reflect" for each in layer.modules())
    return Stage(stateless(layer), kept=kept, start=kept + 1 if mirrored else 1)


def _centred(conv: nn.Conv1d) -> Stage:
    """How far a convolution of DAC looks; what it computes is left to the whole decoder."""
    reach = conv.dilation[0] * (conv.kernel_size[0] - 1) // 2
    return Stage(stateless(conv), kept=2 * reach, late=reach)


def _upsampling(conv: nn.ConvTranspose1d) -> Stage:
    """How far an upsampling of DAC looks, whose kernel is of two strides."""
    return Stage(stateless(conv), kept=1, late=int(conv.padding[0]), hop=conv.stride[0])
