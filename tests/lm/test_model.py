"""Laws of StreamLM: causality, the cache, the context, the prefix, the loss."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest
import torch
from torch import Tensor

from audiolm_kit.checkpoint import chosen, fingerprint, from_plain
from audiolm_kit.conditioning import Context, TextConfig, TextInput
from audiolm_kit.lm.losses import loss
from audiolm_kit.lm.model import LMConfig, Prefix, StreamLM
from audiolm_kit.transformer import TransformerConfig

K, V, T = 3, 11, 5
PATTERNS = ["parallel", "delay", "flatten"]
POSITIONS = ["sinusoidal", "rotary", "relative"]


def tiny_lm(pattern: str = "delay", positions: str = "sinusoidal", **options: object) -> StreamLM:
    """A float64 model whose every weight matters."""
    torch.manual_seed(0)
    transformer = TransformerConfig(dim=16, heads=2, layers=2, cross_attention=True, positions=positions)
    lm = StreamLM(LMConfig(num_codebooks=K, codebook_size=V, pattern=pattern, transformer=transformer, **options))
    for weight in lm.parameters():
        torch.nn.init.normal_(weight, mean=float(weight.dim() == 1), std=1.0 if weight.dim() > 1 else 0.1)
    return lm.double().eval()


def some_codes(batch: int = 2, num_frames: int = T, num_codebooks: int = K, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(V, (batch, num_codebooks, num_frames), generator=generator)


def some_context(lengths: list[int], dim: int = 16, seed: int = 2) -> Context:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(len(lengths), max(lengths), dim, generator=generator, dtype=torch.float64)
    return Context(states, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_logits_depend_on_exactly_the_codes_of_earlier_steps(pattern: str, positions: str) -> None:
    lm, codes, context = tiny_lm(pattern, positions), some_codes(1), some_context([4])
    before = lm(codes, context)
    for k in range(K):
        for t in range(T):
            changed = codes.clone()
            changed[0, k, t] = (changed[0, k, t] + 1) % V
            moved = (lm(changed, context) != before).any(dim=-1)[0]
            step = torch.tensor([[lm.pattern.step(j, u) for u in range(T)] for j in range(K)])
            assert torch.equal(moved, step > lm.pattern.step(k, t))


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_cached_steps_equal_one_pass(pattern: str, positions: str) -> None:
    lm, codes, context = tiny_lm(pattern, positions), some_codes(), some_context([4, 2])
    sequence = lm.pattern.apply(codes, lm.special)
    whole = lm.step_logits(sequence, context)
    cache = lm.new_cache(len(codes), T)
    chunks = sequence.split([2, 1, 1, sequence.shape[-1] - 4], dim=-1)  # a prefill, two steps, a longer piece
    pieces = [lm.step_logits(chunk, context if i == 0 else None, cache=cache) for i, chunk in enumerate(chunks)]
    torch.testing.assert_close(torch.cat(pieces, dim=2), whole)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_forward_is_step_logits_put_back_into_frames(pattern: str) -> None:
    lm, codes, context = tiny_lm(pattern), some_codes(), some_context([4, 2])
    sequence = lm.pattern.apply(codes, lm.special)
    start = torch.full_like(sequence[:, :, :1], lm.special)
    logits = lm.step_logits(torch.cat([start, sequence[:, :, :-1]], dim=-1), context)
    torch.testing.assert_close(lm(codes, context), lm.pattern.revert(logits, T))


def test_offsets_lay_out_the_codes_and_survive_a_config_file() -> None:
    lm = tiny_lm(offsets=[1, 0, 4])
    assert lm.config.offsets == (1, 0, 4)
    assert lm.pattern.num_steps(T) == T + 4
    assert from_plain(LMConfig, json.loads(json.dumps(asdict(lm.config))), "config") == lm.config
    before, codes = lm(some_codes(1)), some_codes(1)
    codes[0, 2, 0] = (codes[0, 2, 0] + 1) % V  # stands at step 4
    moved = (lm(codes) != before).any(dim=-1)[0]
    step = torch.tensor([[lm.pattern.step(j, u) for u in range(T)] for j in range(K)])
    assert torch.equal(moved, step > 4)


def test_offsets_left_out_leave_the_fingerprint_as_it_was() -> None:
    assert fingerprint(tiny_lm()) == fingerprint(tiny_lm(offsets=()))
    assert fingerprint(tiny_lm()) != fingerprint(tiny_lm(offsets=(0, 0, 1)))
    assert "offsets" not in chosen(tiny_lm().config)


def test_items_do_not_see_their_batch_mates_padding() -> None:
    lm, codes, context = tiny_lm(), some_codes(3), some_context([4, 2, 1])
    together = lm(codes, context)
    for i, length in enumerate([4, 2, 1]):
        alone = Context(context.states[i : i + 1, :length], context.mask[i : i + 1, :length])
        torch.testing.assert_close(lm(codes[i : i + 1], alone), together[i : i + 1])


def test_prefix_is_seen_by_all_codes_and_cached_once() -> None:
    lm = tiny_lm("flatten", prefix=Prefix(num_codebooks=2, codebook_size=V))
    codes, prefix = some_codes(), some_codes(num_frames=4, num_codebooks=2, seed=3)
    whole = lm(codes, prefix=prefix)
    assert whole.shape == (2, K, T, V)
    for k in range(2):
        changed = prefix.clone()
        changed[0, k, 1] = (changed[0, k, 1] + 1) % V
        moved = (lm(codes, prefix=changed) != whole).any(dim=-1)
        assert moved[0].all() and not moved[1].any()
    sequence = lm.pattern.apply(codes, lm.special)
    once = lm.step_logits(sequence, prefix=prefix)
    cache = lm.new_cache(2, T, prefix)
    first, rest = sequence[:, :, :1], sequence[:, :, 1:]
    pieces = [lm.step_logits(first, prefix=prefix, cache=cache), lm.step_logits(rest, prefix=prefix, cache=cache)]
    torch.testing.assert_close(torch.cat(pieces, dim=2), once)


def test_codes_of_different_codebooks_have_different_embeddings() -> None:
    lm, codes = tiny_lm("parallel"), some_codes()
    assert not torch.allclose(lm(codes), lm(codes.roll(1, dims=1)))


@pytest.mark.parametrize("kind", ["small", "t5"])
def test_an_empty_caption_is_the_null_context(kind: str) -> None:
    lm, codes = tiny_lm(text=TextConfig(kind=kind, dim=8, layers=1, heads=2, pieces=20)), some_codes()
    mask = torch.tensor([[True, True, True], [False, False, False]])
    content = torch.randint(20, (2, 3)) if kind == "small" else torch.randn(2, 3, 8)
    context = lm.condition(TextInput(content, mask))
    logits = lm(codes, context)
    assert torch.equal(logits[1], lm(codes)[1])
    assert not torch.allclose(logits[0], lm(codes)[0])
    assert (context.states[~mask] == 0).all()


def test_small_encoder_learns_with_the_model_and_a_null_row_teaches_it_nothing() -> None:
    lm, codes = tiny_lm(text=TextConfig(kind="small", dim=8, layers=1, heads=2, pieces=20)), some_codes()
    pieces = torch.tensor([[3, 4, 5], [6, 7, 8]])
    mask = torch.tensor([[True, True, True], [False, False, False]])
    logits = lm(codes, lm.condition(TextInput(pieces, mask)))
    loss(logits, codes, torch.ones(2, T)).backward()
    touched = lm.text_encoder.embedding.weight.grad.abs().sum(dim=1).nonzero()[:, 0]
    assert touched.tolist() == [3, 4, 5]


def test_special_padding_makes_a_short_row_stand_as_if_it_were_alone() -> None:
    lm, codes = tiny_lm("delay"), some_codes()
    mask = torch.arange(T) < torch.tensor([[T], [3]])
    padded = codes.masked_fill(~mask[:, None], lm.special)
    logits = lm(padded)
    torch.testing.assert_close(logits[1:, :, :3], lm(codes[1:, :, :3]))
    torch.testing.assert_close(
        loss(logits[1:], padded[1:], mask[1:]), loss(logits[1:, :, :3], codes[1:, :, :3], mask[1:, :3])
    )


def test_a_new_model_is_nearly_indifferent() -> None:
    torch.manual_seed(0)
    lm = StreamLM(LMConfig(K, V, transformer=TransformerConfig(dim=64, heads=4, layers=4))).eval()
    codes = some_codes(num_frames=200)
    assert abs(loss(lm(codes), codes, torch.ones(2, 200)).item() - math.log(V)) < 0.3


def test_model_learns_a_batch_by_heart() -> None:
    torch.manual_seed(0)
    lm = StreamLM(LMConfig(K, V, transformer=TransformerConfig(dim=32, heads=2, layers=2)))
    optimizer = torch.optim.AdamW(lm.parameters(), lr=1e-2)
    for _ in range(60):
        value = loss(lm(some_codes()), some_codes(), torch.ones(2, T))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert value < 0.5


@pytest.mark.parametrize(
    "make",
    [
        lambda: LMConfig(num_codebooks=0),
        lambda: LMConfig(pattern="dealy"),
        lambda: LMConfig(pattern="flatten", offsets=(0, 1, 2, 3)),
        lambda: LMConfig(offsets=(0, 1, 2)),
        lambda: LMConfig(offsets=(0, 1, 2, -3)),
        lambda: LMConfig(transformer=TransformerConfig(causal=False)),
        lambda: LMConfig(text=TextConfig(kind="small")),
        lambda: Prefix(num_codebooks=-1),
        lambda: tiny_lm()(some_codes(num_codebooks=2)),
        lambda: tiny_lm()(some_codes(), prefix=some_codes()),
        lambda: tiny_lm(prefix=Prefix(2, V))(some_codes()),
        lambda: tiny_lm().condition(TextInput(some_codes()[:, 0], some_codes()[:, 0] > 0)),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(make: object) -> None:
    with pytest.raises(ValueError) as refusal:
        make()  # type: ignore[operator]
    assert "\n" not in str(refusal.value)
