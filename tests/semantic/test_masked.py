"""MaskedModel: hidden states of any layer, spans that are masked, a loss that counts them alone, and it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.semantic.masked import MaskedConfig, MaskedModel, masked_loss, span_mask

CONFIG = MaskedConfig(
    sample_rate=4000, hop=80, num_mels=20, dim=16, heads=2, layers=3, dropout=0.0, codebook_size=6, class_dim=8
)


@pytest.fixture
def model() -> MaskedModel:
    """It has heard some noise, so that it standardises."""
    torch.manual_seed(0)
    made = MaskedModel(CONFIG)
    made(noise(4, 2000))
    return made.eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


# --- the model


@pytest.mark.parametrize("length", [1, 79, 80, 81, 805])
def test_a_frame_for_every_begun_hop(model: MaskedModel, length: int) -> None:
    frames = -(-length // 80)
    assert model(noise(2, length)).shape == (2, frames, 6)
    assert all(model.hidden(noise(2, length), layer).shape == (2, frames, 16) for layer in range(4))


def test_logits_are_cosines_over_the_temperature(model: MaskedModel) -> None:
    logits = model(noise(3, 4000)).detach()
    assert float(logits.abs().max()) <= 10 + 1e-4
    model.classes.data *= 7  # a class does not win by being long
    torch.testing.assert_close(model(noise(3, 4000)).detach(), logits)


def test_inputs_are_standardised_by_all_that_was_heard_in_training(model: MaskedModel) -> None:
    torch.manual_seed(0)
    heard = MaskedModel(CONFIG)
    sounds = [noise(4, 2000, seed=seed) for seed in range(3)]
    for sound in sounds:
        heard(sound)
    bands = torch.cat([heard.mel(sound * (0.9 / sound.abs().amax(1, keepdim=True))) for sound in sounds])
    torch.testing.assert_close(heard.standard.running_mean, bands.mean((0, 1)), rtol=1e-3, atol=1e-3)
    before = heard.eval().state_dict()["standard.running_mean"].clone()
    heard(noise(4, 2000, seed=9))
    assert torch.equal(heard.standard.running_mean, before)


def test_it_does_not_hear_what_is_masked_but_hears_all_around_it(model: MaskedModel) -> None:
    model = MaskedModel(replace(CONFIG, peak=0.0)).eval()
    audio = noise(1, 1600)
    mask = torch.zeros(1, 20, dtype=torch.bool)
    mask[0, 8:14] = True
    changed = audio.clone()
    changed[0, 9 * 80 : 13 * 80] += 0.3  # windows of its neighbours do not reach so far in
    torch.testing.assert_close(model(changed, mask), model(audio, mask))
    assert not torch.allclose(model(changed), model(audio))
    around = audio.clone()
    around[0, 18 * 80 :] += 0.3
    assert not torch.allclose(model(around, mask)[0, 10], model(audio, mask)[0, 10])  # it sees what comes later


def test_hidden_states_are_what_the_layers_give(model: MaskedModel) -> None:
    audio = noise(2, 800)
    last = model.hidden(audio, 3)
    torch.testing.assert_close(last.mean(-1), torch.zeros(2, 10), atol=1e-5, rtol=0)
    logits = model(audio)
    made = torch.nn.functional.normalize(model.predict(model.transformer.norm(last)), dim=-1)
    known = torch.nn.functional.normalize(model.classes, dim=-1)
    # The final norm begins as the plain one, and a norm of the normed is the same again.
    torch.testing.assert_close(made @ known.T / 0.1, logits, atol=1e-3, rtol=1e-3)
    states = [model.hidden(audio, layer) for layer in range(4)]
    assert all(not torch.allclose(one, other, atol=1e-3) for one, other in zip(states[1:], states, strict=False))
    assert not any(layer._forward_hooks for layer in model.transformer.layers)


def test_a_batch_is_its_items_one_by_one(model: MaskedModel) -> None:
    audio = noise(3, 840)
    one_by_one = torch.cat([model.hidden(item[None], 2) for item in audio])
    torch.testing.assert_close(model.hidden(audio, 2), one_by_one, atol=1e-5, rtol=1e-4)


def test_the_level_does_not_matter(model: MaskedModel) -> None:
    audio = noise(1, 800)
    torch.testing.assert_close(model.hidden(audio * 0.1, 3), model.hidden(audio, 3), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary", "relative"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_what_is_cut_off_above_changes_nothing_below(layers: int, positions: Any) -> None:
    torch.manual_seed(0)
    model = MaskedModel(replace(CONFIG, positions=positions)).eval()
    cut, audio = model.cut(layers), noise(2, 400)
    assert len(cut.transformer.layers) == cut.config.layers == layers
    assert all(torch.equal(cut.hidden(audio, layer), model.hidden(audio, layer)) for layer in range(layers + 1))


def test_it_comes_back_from_its_checkpoint(model: MaskedModel, tmp_path: Path) -> None:
    checkpoint.save(model, tmp_path / "masked")
    loaded = checkpoint.load(MaskedModel, tmp_path / "masked")
    assert loaded.config == CONFIG and checkpoint.fingerprint(loaded) == checkpoint.fingerprint(model)
    assert torch.equal(loaded(noise(1, 500)), model(noise(1, 500)))


# --- masks and loss


def test_every_row_has_as_many_starts_and_whole_spans() -> None:
    mask = span_mask(50, 100, 0.08, 10, torch.Generator().manual_seed(0))
    assert mask.shape == (50, 100) and mask.dtype == torch.bool
    assert 0.4 < float(mask.float().mean()) < 0.65  # 1 - 0.92 ** 10 = 0.57, less at the edges
    runs = mask[:, :-1].float().diff(dim=1, prepend=torch.zeros(50, 1))
    for row, edges in zip(mask, runs, strict=True):
        starts = (edges == 1).nonzero()[:, 0].tolist()
        assert all(bool(row[start : start + 10].all()) for start in starts)
    assert int(span_mask(3, 100, 0.08, 1).sum()) == 3 * 8


def test_masks_come_from_the_generator() -> None:
    one, same, other = (span_mask(4, 50, 0.1, 5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    torch.manual_seed(5)
    drawn = span_mask(4, 50, 0.1, 5)
    torch.manual_seed(5)
    assert torch.equal(span_mask(4, 50, 0.1, 5), drawn)


@pytest.mark.parametrize("frames", [1, 3])
def test_short_sounds_are_masked_too(frames: int) -> None:
    assert bool(span_mask(2, frames, 0.01, 10).any(dim=1).all())


def test_the_loss_counts_masked_frames_alone_unless_told() -> None:
    logits, targets = torch.randn(2, 7, 5), torch.randint(0, 5, (2, 7))
    mask = torch.rand(2, 7) < 0.5
    mask[0, :2] = torch.tensor([True, False])
    loss = masked_loss(logits, targets, mask)
    other = torch.where(mask[..., None], logits, torch.randn(2, 7, 5) * 9)
    assert masked_loss(other, targets, mask) == loss
    wanted = torch.nn.functional.cross_entropy(logits[mask], targets[mask])
    torch.testing.assert_close(loss.loss, wanted)
    assert float(loss.accuracy) == float((logits[mask].argmax(-1) == targets[mask]).float().mean())
    heard = torch.nn.functional.cross_entropy(logits[~mask], targets[~mask])
    torch.testing.assert_close(masked_loss(logits, targets, mask, 0.75).loss, 0.75 * wanted + 0.25 * heard)
    everything = masked_loss(logits, targets, torch.ones_like(mask), 0.5)
    assert bool(everything.loss.isfinite())


def test_one_batch_is_learned_by_heart() -> None:
    torch.manual_seed(0)
    model, audio, targets = MaskedModel(CONFIG), noise(2, 1600), torch.randint(0, 6, (2, 20))
    mask = span_mask(2, 20, 0.08, 5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(80):
        made = masked_loss(model(audio, mask), targets, mask)
        optimizer.zero_grad()
        made.loss.backward()
        optimizer.step()
        losses.append(made.loss.item())
    assert losses[-1] < 0.1 * losses[0] and float(made.accuracy) == 1


# --- refusals


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hop": 81}, "masked hop 81 is not divisible by stack 2"),
        ({"codebook_size": 0}, "masked codebook_size is 0"),
        ({"peak": 2.0}, "masked peak is 2.0"),
        ({"temperature": 0.0}, "masked temperature is 0.0"),
        ({"heads": 3}, "transformer dim 16 is not divisible by heads 3"),
    ],
)
def test_configs_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **given)


def test_layers_and_sounds_that_are_not_there_are_refused(model: MaskedModel) -> None:
    for layer in (-1, 4):
        with pytest.raises(ValueError, match=rf"layer is {layer}, this model has 0 \(its input\) to 3"):
            model.hidden(noise(1, 100), layer)
    with pytest.raises(ValueError, match="cannot keep 0 of 3 layers"):
        model.cut(0)
    for shape in ((100,), (1, 0), (1, 1, 100)):
        with pytest.raises(ValueError, match=r"wanted \[B, L\] with at least one sample"):
            model(torch.zeros(shape))
