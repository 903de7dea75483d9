"""The postfilter draws detail of its own, begins by changing nothing, and leaves codes alone; its discriminator."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from small_codecs import convnext
from torch import Tensor

from audiolm_kit.codec.convnext import ConvNeXtDecoder
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.fourier_head import QUIETEST
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.codec.postfilter import (
    DRAWS,
    MAPS,
    Postfilter,
    SpectrogramDiscriminator,
    SpectrogramDiscriminatorConfig,
    patch_distance,
)
from audiolm_kit.training.postfilter import with_postfilter

BEGUN = convnext(noise=True, linear=True)


def begun(**body: Any) -> NeuralCodec:
    torch.manual_seed(0)
    return NeuralCodec(dataclasses.replace(BEGUN, convnext=dataclasses.replace(BEGUN.convnext, **body))).eval()


def drawing(refine: int = 2) -> NeuralCodec:
    """One whose postfilter changes much."""
    codec = with_postfilter(begun(), 4, refine).eval()
    torch.manual_seed(1)
    torch.nn.init.normal_(head_of(codec).postfilter.layers[-1].weight)  # type: ignore[arg-type]
    return codec


def head_of(codec: NeuralCodec) -> Any:
    assert isinstance(codec.decoder, ConvNeXtDecoder)
    return codec.decoder.head


def maps(frames: int, bins: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = ((2, frames, bins), (2, MAPS, frames, bins), (2, DRAWS, frames, bins))
    loud, told, noise = (torch.randn(size, generator=generator) for size in sizes)
    return loud, told, noise


def test_it_begins_by_changing_nothing() -> None:
    loud, told, noise = maps(20, 17)
    assert torch.equal(Postfilter(8, 1, 17, filters=4)(loud, told, noise), loud)


def test_what_it_draws_depends_on_the_noise_near_by_alone() -> None:
    torch.manual_seed(0)
    postfilter, (loud, told, noise) = Postfilter(8, 1, 17, filters=4).double(), maps(40, 17)
    torch.nn.init.normal_(postfilter.layers[-1].weight)  # type: ignore[arg-type]
    loud, told, noise = loud.double(), told.double(), noise.double()
    other = noise.clone()
    other[:, :, 20] += 1.0
    moved = (postfilter(loud, told, noise) - postfilter(loud, told, other)).abs().amax((0, 2)) > 0
    assert moved.nonzero().flatten().tolist() == list(range(20 - postfilter.reach, 20 + postfilter.reach + 1))


def test_the_same_codes_give_the_same_sound_and_training_draws_anew() -> None:
    codec = drawing()
    codes = torch.randint(0, 16, (1, 3, 12), generator=torch.Generator().manual_seed(2))
    assert torch.equal(codec.decode(codes), codec.decode(codes))
    frames = codec.decoder.frames(codec.latents(codes))  # type: ignore[operator,union-attr]
    (loud, once), (_, again) = (head_of(codec).drawn_magnitudes(frames) for _ in range(2))
    assert not torch.equal(once, again) and not torch.equal(once, loud)


def test_codes_stay_what_they_are() -> None:
    sound = torch.randn(2, 1, 320, generator=torch.Generator().manual_seed(3))
    codec = begun()
    assert torch.equal(with_postfilter(codec, 4, refine=2).eval().encode(sound), codec.encode(sound))


def test_sound_has_the_magnitudes_that_it_draws() -> None:
    """The more, the more rounds phases have had to fit them."""
    codes = torch.randint(0, 16, (1, 3, 40), generator=torch.Generator().manual_seed(2))
    far = []
    for refine in (0, 2, 16):
        codec = drawing(refine)
        head = head_of(codec)
        with torch.no_grad():
            read = head.carried(codec.decoder.frames(codec.latents(codes)), None)[0]  # type: ignore[operator,union-attr]
            spectrum = head.filtering()[0].network(read, None)[0]
            real, imaginary = spectrum[:, : 2 * head.config.bins].chunk(2, 1)
            magnitude = spectrum[:, 2 * head.config.bins :] if refine else torch.hypot(real, imaginary)
            made = head.measured(head.waveform(head.refined(spectrum))).exp()[:, 0].transpose(1, 2)
        far.append(float((made - magnitude).norm() / magnitude.norm()))
    assert far == sorted(far, reverse=True) and far[-1] < 0.95 * far[0]


def test_a_codec_that_has_one_keeps_it() -> None:
    codec = drawing()
    again = with_postfilter(codec, 4, refine=2).eval()
    assert checkpoint_equal(codec, again)
    with pytest.raises(ValueError, match="postfilter of 4 filters, not of 5"):
        with_postfilter(codec, 5, refine=2)


def test_blocks_that_have_learned_nothing_give_way_to_others() -> None:
    codec, sound = begun(), torch.randn(2, 1, 320, generator=torch.Generator().manual_seed(3))
    made = with_postfilter(codec, 4, refine=2, width=6, layers=3).eval()
    body = made.config.convnext
    assert (body.width, body.decoder_layers, body.encoder_layers) == (6, 3, 0)
    assert torch.equal(made.encode(sound), codec.encode(sound))
    codes = codec.encode(sound)
    (loud, drawn), (_, old) = (
        head_of(each).drawn_magnitudes(each.decoder.frames(each.latents(codes)))  # type: ignore[operator,union-attr]
        for each in (made, with_postfilter(codec, 4, refine=2).eval())
    )
    torch.testing.assert_close(drawn, old)  # of the linear way, which is the same
    assert torch.equal(drawn, loud.clamp_min(QUIETEST))


def test_blocks_that_have_learned_stay() -> None:
    codec = begun()
    with torch.no_grad():
        head_of(codec).project.weight[0] = 0.1
    assert with_postfilter(codec, 4, refine=2).config.convnext.width == codec.config.convnext.width
    with pytest.raises(ValueError, match="blocks have learned, and would be lost"):
        with_postfilter(codec, 4, refine=2, layers=3)


def checkpoint_equal(one: NeuralCodec, other: NeuralCodec) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("body", [{"linear": False}, {"noise": False}, {"linear_noise": True}])
def test_bodies_that_it_does_not_fit_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="linear and noise"):
        with_postfilter(begun(**body), 4, refine=2)
    with pytest.raises(ValueError, match="set linear and noise"):
        ConvNeXtConfig(**{"linear": True, "noise": True, **body}, postfilter=4)


def test_a_negative_number_of_filters_is_refused() -> None:
    with pytest.raises(ValueError, match="postfilter is -1"):
        ConvNeXtConfig(linear=True, noise=True, postfilter=-1)


# --- discriminator, distance


def test_each_scale_judges_at_half_the_resolution_of_the_one_before() -> None:
    judge = SpectrogramDiscriminator(SpectrogramDiscriminatorConfig((4, 3)))
    judged = judge(torch.randn(2, 32, 65), torch.randn(2, 32, 65))
    shapes = [tuple(each.shape) for each in judged.logits]
    assert shapes == [(2, 1, 8, 5), (2, 1, 4, 2)] and [len(each) for each in judged.features] == [5, 5]


def test_the_verdict_depends_on_what_codes_say_too() -> None:
    torch.manual_seed(0)
    judge, made = SpectrogramDiscriminator(SpectrogramDiscriminatorConfig((4,))), torch.randn(1, 32, 65)
    first, second = (judge(made, loud).logits[0] for loud in torch.randn(2, 1, 32, 65))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("filters", [(), (4, 0)])
def test_a_discriminator_without_filters_is_refused(filters: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one or more numbers of at least 1"):
        SpectrogramDiscriminatorConfig(filters)


def test_patches_are_far_where_something_is_louder_and_near_where_it_only_has_other_detail() -> None:
    real = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(0))
    shuffled = real.view(2, 4, 4, 32).flip(2).reshape(2, 16, 32)
    assert float(patch_distance(shuffled, real)) < 1e-6
    assert float(patch_distance(real, real)) == 0
    assert float(patch_distance(real + 1.0, real)) == pytest.approx(1.0 + 2.0 / 2, rel=1e-3)
