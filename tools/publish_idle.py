"""A codec without its idle weights: blocks of the light body that reach neither its codes nor its sound.

A codec that is only begun (``max_steps: 0``) does all its work by its linear way and its codebooks. Its blocks hold
random numbers: those of the encoder are multiplied by zeros, those of the decoder give nothing but phases, in the place
of which refining (``ConvNeXtConfig.refine``) begins with noise. They are nine tenths of its checkpoint.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from audiolm_kit.codec.beginning import encoder_is_idle, gives_phases_alone
from audiolm_kit.codec.convnext import ConvNeXtDecoder, ConvNeXtEncoder
from audiolm_kit.codec.convnext_block import ConvNeXtBlock
from audiolm_kit.codec.foreign import ForeignCodec
from audiolm_kit.codec.model import NeuralCodec

AnyCodec = NeuralCodec | ForeignCodec


def without_idle_blocks(codec: AnyCodec, phases: bool = False) -> AnyCodec:
    """The same codec without blocks that do nothing; the codec itself where all its blocks do something.

    Codes stay the same, bit for bit, and so does sound as far as blocks are left out that do nothing at all.

    Args:
        phases: leave out a decoder's blocks also where the phases that refining replaces are all that comes of them.
            They are heard a little, as magnitudes are those of a tone of that phase beside noise: a constant in their
            place changes sounds less than another draw of the noise does.
    """
    if not isinstance(codec, NeuralCodec) or codec.config.body != "convnext":
        return codec
    if phases and _needs_no_phases(codec):
        codec = _with_constant_phases(codec)
    if codec.config.convnext.postfilter:
        codec = _with_zeros_where_nothing_is_read(codec)
    keep_encoder, keep_decoder = _at_work(codec)
    body = codec.config.convnext
    layers = len(keep_encoder), len(keep_decoder)
    if layers == (body.encoder_layers, body.decoder_layers):
        return codec
    width = 1 if encoder_is_idle(_encoder(codec)) and _decoder_is_idle(codec) else body.width
    smaller = dataclasses.replace(body, encoder_layers=layers[0], decoder_layers=layers[1], width=width)
    config = dataclasses.replace(codec.config, convnext=smaller)
    made, kept = NeuralCodec(config), codec.state_dict()
    state = made.state_dict()
    for name in state:
        source = _source(name, {"encoder": keep_encoder, "decoder": keep_decoder})
        # Another shape have, with width 1, weights on the blocks' way alone, on which zeros stand somewhere already.
        state[name] = kept[source] if kept[source].shape == state[name].shape else torch.zeros_like(state[name])
    made.load_state_dict(state)
    return made.train(codec.training)


def _source(name: str, kept: dict[str, list[int]]) -> str:
    """What a weight is called in the codec that it comes from."""
    side, _, rest = name.partition(".")
    if not rest.startswith("blocks."):
        return name
    _, place, inside = rest.split(".", 2)
    return f"{side}.blocks.{kept[side][int(place)]}.{inside}"


def _at_work(codec: NeuralCodec) -> tuple[list[int], list[int]]:
    """The places of the encoder's and the decoder's blocks that something comes of."""
    encoder = [] if encoder_is_idle(_encoder(codec)) else _active(_encoder(codec).blocks)
    decoder = [] if _decoder_is_idle(codec) else _active(_decoder(codec).blocks)
    return encoder, decoder


def _active(blocks: nn.Sequential) -> list[int]:
    """Blocks whose share in their output is not zero."""
    return [place for place, block in enumerate(blocks) if isinstance(block, ConvNeXtBlock) and bool(block.scale.any())]


def _decoder_is_idle(codec: NeuralCodec) -> bool:
    """The same of the decoder: nothing depends on the blocks; the head's bias is no block's."""
    if codec.config.convnext.postfilter:  # which the blocks tell what to draw
        return False
    return codec.config.convnext.linear and not bool(_decoder(codec).head.project.weight.any())


def _needs_no_phases(codec: NeuralCodec) -> bool:
    """Whether the blocks give phases alone, and refining begins with noise in their place."""
    own = codec.config.convnext
    return own.noise and own.refine > 0 and gives_phases_alone(_decoder(codec))


def _with_constant_phases(codec: NeuralCodec) -> NeuralCodec:
    """A copy whose head gives every frame the phase 0."""
    made = NeuralCodec(codec.config)
    made.load_state_dict(codec.state_dict())
    head = _decoder(made).head
    size = head.channels * codec.config.convnext.bins
    with torch.no_grad():
        head.project.weight[size : 2 * size] = 0.0
        head.project.bias[size : 2 * size] = 0.0
    return made.train(codec.training)


def _with_zeros_where_nothing_is_read(codec: NeuralCodec) -> NeuralCodec:
    """A copy of a codec with a postfilter, zeros where its weights do nothing: they lie on disk as a shape alone.

    Of its head those are phases and shares of noise, in the place of which noise and refining stand.
    """
    made = NeuralCodec(codec.config)
    made.load_state_dict(codec.state_dict())
    head = _decoder(made).head
    size = head.channels * codec.config.convnext.bins
    with torch.no_grad():
        head.project.weight[size:] = 0.0
        head.project.bias[size:] = 0.0
        if encoder_is_idle(_encoder(made)):
            for weight in _encoder(made).enter.parameters():
                weight.zero_()
    return made.train(codec.training)


def _encoder(codec: NeuralCodec) -> ConvNeXtEncoder:
    assert isinstance(codec.encoder, ConvNeXtEncoder)
    return codec.encoder


def _decoder(codec: NeuralCodec) -> ConvNeXtDecoder:
    assert isinstance(codec.decoder, ConvNeXtDecoder)
    return codec.decoder
