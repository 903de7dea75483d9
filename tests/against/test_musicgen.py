"""StreamLM against MusicGen of transformers: the same random weights give the same logits and the same codes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from audiolm_kit.conditioning import Context
from audiolm_kit.lm.generate import generate
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.transformer import TransformerConfig

transformers = pytest.importorskip("transformers")

K, V, D, LAYERS, T = 4, 13, 16, 2, 6


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.MusicgenDecoderConfig(
        vocab_size=V,
        num_codebooks=K,
        hidden_size=D,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        ffn_dim=4 * D,
        pad_token_id=V,
        bos_token_id=V,
        attn_implementation="eager",
    )
    model = transformers.MusicgenForCausalLM(config)
    for weight in model.parameters():
        nn.init.normal_(weight, mean=float(weight.dim() == 1), std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def ours(theirs: nn.Module) -> StreamLM:
    transformer = TransformerConfig(dim=D, heads=2, layers=LAYERS, cross_attention=True)
    lm = StreamLM(LMConfig(num_codebooks=K, codebook_size=V, pattern="delay", transformer=transformer))
    lm.load_state_dict(renamed(theirs.state_dict()))
    return lm.eval()


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their weights under our names."""
    decoder = "model.decoder"
    tables = [weights[f"{decoder}.embed_tokens.{k}.weight"] for k in range(K)]
    heads = [weights[f"lm_heads.{k}.weight"] for k in range(K)]
    out = {"embedding.weight": torch.cat(tables), "heads.weight": torch.cat(heads)}
    norms = {"attention_norm": "self_attn_layer_norm", "cross_attention_norm": "encoder_attn_layer_norm"}
    plain = {
        "attention.output": "self_attn.out_proj",
        "cross_attention.query": "encoder_attn.q_proj",
        "cross_attention.output": "encoder_attn.out_proj",
        "feed_forward.up": "fc1",
        "feed_forward.down": "fc2",
        "feed_forward_norm": "final_layer_norm",
        **norms,
    }
    for i in range(LAYERS):
        us, them = f"transformer.layers.{i}", f"{decoder}.layers.{i}"
        for name, their_name in plain.items():
            for part in ("weight", "bias") if name.endswith("norm") else ("weight",):
                out[f"{us}.{name}.{part}"] = weights[f"{them}.{their_name}.{part}"]
        fused = [weights[f"{them}.self_attn.{part}_proj.weight"] for part in "qkv"]
        out[f"{us}.attention.query_key_value.weight"] = torch.cat(fused)
        fused = [weights[f"{them}.encoder_attn.{part}_proj.weight"] for part in "kv"]
        out[f"{us}.cross_attention.key_value.weight"] = torch.cat(fused)
    for part in ("weight", "bias"):
        out[f"transformer.norm.{part}"] = weights[f"{decoder}.layer_norm.{part}"]
    return out


def some_context() -> Context:
    states = torch.randn(2, 5, D, generator=torch.Generator().manual_seed(2))
    return Context(states, torch.arange(5) < torch.tensor([[5], [3]]))


def their_logits(theirs: nn.Module, sequence: Tensor, context: Context) -> Tensor:
    """Logits ``[B, K, S, V]`` of a sequence ``[B, K, S]`` that begins with the special step."""
    flat = sequence.flatten(0, 1)  # they take codebooks as rows
    inputs = {"encoder_hidden_states": context.states, "encoder_attention_mask": context.mask.long()}
    with torch.no_grad():
        logits = theirs(input_ids=flat, **inputs).logits
    return logits.view(*sequence.shape, -1)


def delayed_by_hand(codes: Tensor) -> Tensor:
    """Frame t of codebook k at step t + k + 1, step 0 and all other cells special: S = T + K."""
    sequence = torch.full((len(codes), K, codes.shape[-1] + K), V)
    for k in range(K):
        sequence[:, k, k + 1 : k + 1 + codes.shape[-1]] = codes[:, k]
    return sequence


def test_logits_are_equal_with_context_of_unequal_length(ours: StreamLM, theirs: nn.Module) -> None:
    codes = torch.randint(V, (2, K, T), generator=torch.Generator().manual_seed(1))
    expected = their_logits(theirs, delayed_by_hand(codes), some_context())
    at_codes = torch.stack([expected[:, k, k : k + T] for k in range(K)], dim=1)  # step s predicts step s + 1
    torch.testing.assert_close(ours(codes, some_context()), at_codes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.step_logits(delayed_by_hand(codes), some_context()), expected, rtol=1e-4, atol=1e-5)


def test_prompted_greedy_guided_continuation_has_the_same_codes(ours: StreamLM, theirs: nn.Module) -> None:
    prompt = torch.randint(V, (2, K, 3), generator=torch.Generator().manual_seed(3))
    codes = generate(ours, prompt, 12, Sampling(temperature=0, guidance_scale=3.0), some_context())

    context = some_context()
    null = Context(torch.zeros_like(context.states), torch.ones_like(context.mask))  # zeros, attended to
    sequence = delayed_by_hand(torch.cat([prompt, torch.full((2, K, 9), -1)], dim=-1))
    for step in range(1, sequence.shape[-1]):
        conditional = their_logits(theirs, sequence[:, :, :step], context)[:, :, -1]
        unconditional = their_logits(theirs, sequence[:, :, :step], null)[:, :, -1]
        best = (unconditional + (conditional - unconditional) * 3.0).argmax(-1)
        sequence[:, :, step] = torch.where(sequence[:, :, step] < 0, best, sequence[:, :, step])
    expected = torch.stack([sequence[:, k, k + 1 : k + 13] for k in range(K)], dim=1)
    assert torch.equal(codes, expected)
    assert len(codes[:, :, 3:].unique()) > 4
