"""Laws of the losses: distances of nothing are nothing, the hinges pull the right way, the balancer knows no scale."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from audiolm_kit.codec.discriminator import Judgement
from audiolm_kit.codec.losses import (
    Balancer,
    MelLoss,
    energy_distance,
    feature_matching,
    hinge_discriminator,
    hinge_generator,
)

MEL = MelLoss(16000, fft_sizes=(64, 256))


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.2


def judged(*logits: float) -> Judgement:
    """Each scale's logits all the same, no hidden layers."""
    return Judgement([torch.full((2, 1, 4, 3), value) for value in logits], [[] for _ in logits])


# --- the energy distance


def spread(scale: float, count: int = 4000) -> float:
    """The energy distance of renditions of noise of this deviation from real noise of deviation 1."""
    made = scale * noise(2 * count, 1, 1, seed=1)
    return float(energy_distance(torch.nn.functional.l1_loss, made, noise(count, 1, 1, seed=2)))


def test_the_energy_distance_is_least_for_renditions_that_vary_as_the_real_ones_do() -> None:
    found = {scale: spread(scale) for scale in (0.0, 0.5, 1.0, 1.5, 2.0)}
    assert min(found, key=lambda scale: found[scale]) == 1.0
    plain = {scale: float((scale * noise(4000, seed=1) - noise(4000, seed=2)).abs().mean()) for scale in found}
    assert min(plain, key=lambda scale: plain[scale]) == 0.0  # a distance alone prefers the average


def test_the_energy_distance_of_one_rendition_is_the_distance() -> None:
    made, real = noise(3, 1, 20, seed=1), noise(3, 1, 20, seed=2)
    assert energy_distance(torch.nn.functional.l1_loss, made, real) == torch.nn.functional.l1_loss(made, real)


def test_by_frame_each_frame_is_measured_by_itself() -> None:
    real = noise(1, 1, 2048, seed=3)
    half = torch.cat([real[..., :1024], 100 * real[..., 1024:]], -1)  # one half of it is far off
    both = 10 * real
    whole, single = MelLoss(16000, (64,)), MelLoss(16000, (64,), by_frame=True)
    assert float(single(both, real)) == pytest.approx(float(whole(both, real)), rel=1e-3)
    assert float(single(half, real)) < float(whole(half, real))  # the L1 part is alike in both


# --- the mel distance


def test_a_sound_has_no_distance_from_itself() -> None:
    audio = noise(2, 1, 1000)
    assert float(MEL(audio, audio.clone())) == 0
    assert float(MEL(torch.zeros(2, 1, 1000), torch.zeros(2, 1, 1000))) == 0


def test_distance_grows_with_distortion() -> None:
    audio, other = noise(2, 2, 1000), noise(2, 2, 1000, seed=2)
    distances = [float(MEL(audio + share * other, audio)) for share in (0.01, 0.1, 0.5, 2.0)]
    assert distances[0] > 0 and distances == sorted(distances)
    levels = [float(MEL(audio * 10 ** (gain / 20), audio)) for gain in (1, 6, 20)]
    assert levels == sorted(levels)


def test_distance_is_symmetric_and_averages_over_resolutions() -> None:
    first, second = noise(1, 1, 1000), noise(1, 1, 1000, seed=2)
    assert float(MEL(first, second)) == pytest.approx(float(MEL(second, first)))
    parts = [float(MelLoss(16000, fft_sizes=(size,))(first, second)) for size in (64, 256)]
    assert float(MEL(first, second)) == pytest.approx(sum(parts) / 2, rel=1e-5)


@pytest.mark.parametrize("made", [torch.zeros(2, 1, 600), noise(2, 1, 600)], ids=["silence", "noise"])
@pytest.mark.parametrize("real", [torch.zeros(2, 1, 600), noise(2, 1, 600)], ids=["silence", "noise"])
def test_gradient_is_finite_also_in_silence_and_where_nothing_differs(made: Tensor, real: Tensor) -> None:
    made = made.clone().requires_grad_()
    loss = MEL(made, real)
    loss.backward()
    assert made.grad is not None and bool(made.grad.isfinite().all())
    assert bool(made.grad.any()) == (float(loss.detach()) > 0 and bool(made.any()))


def test_descent_on_the_distance_finds_the_level() -> None:
    real = noise(1, 1, 1000)
    gain = torch.tensor(0.2, requires_grad=True)
    optimizer = torch.optim.Adam([gain], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        MEL(real * gain, real).backward()
        optimizer.step()
    assert gain.item() == pytest.approx(1.0, abs=0.1)


def test_sounds_shorter_than_the_longest_window_have_a_distance() -> None:
    assert float(MEL(noise(1, 1, 50), noise(1, 1, 50, seed=2))) > 0
    assert math.isfinite(float(MEL(noise(1, 1, 1), noise(1, 1, 1, seed=2))))


# --- the adversary


def test_the_discriminator_is_content_when_it_tells_apart_by_a_margin() -> None:
    assert float(hinge_discriminator(judged(-1.0, -3.0), judged(1.0, 2.0))) == 0
    assert float(hinge_discriminator(judged(0.0), judged(0.0))) == 2
    assert float(hinge_discriminator(judged(1.0, -1.0), judged(-1.0, 1.0))) == pytest.approx((4 + 0) / 2)


def test_the_codec_is_content_when_it_is_judged_real() -> None:
    assert float(hinge_generator(judged(1.0, 5.0))) == 0
    assert float(hinge_generator(judged(-1.0, 1.0))) == 1
    logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
    hinge_generator(Judgement([logits], [[]])).backward()
    assert bool((logits.grad < 0).all())


def test_feature_matching_is_relative_and_pulls_only_what_was_made() -> None:
    made, real = noise(1, 2, 3, 3).requires_grad_(), noise(1, 2, 3, 3, seed=2).requires_grad_()

    def loss(scale: float) -> Tensor:
        layers = [[made * scale, made * scale], [made * scale]]
        return feature_matching(Judgement([], layers), Judgement([], [[real * scale] * 2, [real * scale]]))

    assert float(loss(1.0).detach()) == pytest.approx(float(loss(50.0).detach()), rel=1e-5)
    loss(1.0).backward()
    assert made.grad is not None and real.grad is None
    same = Judgement([], [[made]])
    assert float(feature_matching(same, same).detach()) == 0


def test_judgements_of_different_scales_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="shorter|longer"):
        hinge_discriminator(judged(0.0), judged(0.0, 0.0))


# --- the balancer


def losses_of(output: Tensor, scales: dict[str, float]) -> dict[str, Tensor]:
    """Losses whose gradients are noise of their own, times a scale."""
    directions = {name: noise(*output.shape, seed=seed) for seed, name in enumerate(("mel", "wave", "feature"))}
    return {name: (output * directions[name]).sum() * scale for name, scale in scales.items()}


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e5])
def test_shares_of_the_gradient_are_the_weights_whatever_the_scale(scale: float) -> None:
    output = noise(3, 1, 200).requires_grad_()
    weights = {"mel": 3.0, "wave": 1.0}
    both = Balancer(weights).gradient(losses_of(output, {"mel": scale, "wave": 7.0}), output)
    for name, share in (("mel", 0.75), ("wave", 0.25)):
        direction = torch.autograd.grad(losses_of(output, {name: 1.0})[name], output)[0]
        assert float((both * direction).sum() / direction.square().sum() * direction.flatten(1).norm(dim=1).mean()) == (
            pytest.approx(share, abs=0.12)  # noise in 600 dimensions is not quite orthogonal
        )
    alone = Balancer(weights).gradient(losses_of(output, {"mel": scale}), output)
    assert float(alone.flatten(1).norm(dim=1).mean()) == pytest.approx(1.0, rel=1e-4)


def test_scaling_a_loss_changes_nothing_from_the_start() -> None:
    output, weights = noise(2, 1, 50).requires_grad_(), {"mel": 2.0, "wave": 0.5}
    plain = Balancer(weights).gradient(losses_of(output, {"mel": 1.0, "wave": 1.0}), output)
    scaled = Balancer(weights).gradient(losses_of(output, {"mel": 100.0, "wave": 1.0}), output)
    torch.testing.assert_close(plain, scaled)


def test_norms_are_averaged_over_steps() -> None:
    output, balancer = noise(2, 1, 50).requires_grad_(), Balancer({"mel": 1.0}, decay=0.5)
    norms = []
    for scale in (1.0, 3.0, 3.0):
        norms.append(float(balancer.gradient(losses_of(output, {"mel": scale}), output).flatten(1).norm(dim=1).mean()))
    average = (0.5 * 1 + 3) / 1.5  # newest first: weights 1, 1/2
    assert norms[0] == pytest.approx(1.0) and norms[1] == pytest.approx(3 / average) and norms[1] > norms[2] > 1


def test_a_loss_without_gradient_does_no_harm() -> None:
    output = noise(2, 1, 50).requires_grad_()
    losses = {**losses_of(output, {"mel": 1.0}), "wave": (output * 0).sum()}
    assert bool(Balancer({"mel": 1.0, "wave": 1.0}).gradient(losses, output).isfinite().all())


def test_weights_of_absent_losses_do_not_count() -> None:
    output = noise(2, 1, 50).requires_grad_()
    losses = losses_of(output, {"mel": 1.0})
    full = Balancer({"mel": 1.0, "adversarial": 100.0}).gradient(losses, output)
    torch.testing.assert_close(full, Balancer({"mel": 1.0}).gradient(losses, output))


def test_a_loss_without_a_weight_is_refused() -> None:
    output = noise(2, 1, 50).requires_grad_()
    losses = losses_of(output, {"mel": 1.0, "wave": 1.0})
    with pytest.raises(ValueError, match=r"losses \['wave'\] have no weight: the recipe weighs \['mel'\]"):
        Balancer({"mel": 1.0}).gradient(losses, output)
    with pytest.raises(ValueError, match="all weigh 0"):
        Balancer({"mel": 0.0, "wave": 0.0}).gradient(losses, output)
    with pytest.raises(ValueError, match="wanted shares of 0 or more"):
        Balancer({"mel": -1.0})


def test_the_state_goes_on_where_it_stopped() -> None:
    output, weights = noise(2, 1, 50).requires_grad_(), {"mel": 2.0, "wave": 0.5}
    whole = Balancer(weights)
    for scale in (1.0, 5.0):
        whole.gradient(losses_of(output, {"mel": scale, "wave": 1.0}), output)
    resumed = Balancer(weights)
    resumed.restore(whole.state())
    last = losses_of(output, {"mel": 2.0, "wave": 3.0})
    assert torch.equal(whole.gradient(last, output), resumed.gradient(last, output))
    assert whole.state() == resumed.state()
    assert not torch.equal(Balancer(weights).gradient(last, output), resumed.gradient(last, output))
