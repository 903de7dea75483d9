"""Laws of LoRA: adapters change nothing at first, they alone learn, each matrix by itself, and merged they vanish."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.conditioning import Context, TextConfig, TextInput
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.adapters import Adapters, adapt, load_adapters, merge_folder, save_adapters
from audiolm_kit.lm.lora import AdaptedLinear, LoRAConfig, add, merge, merged, trained_weights
from audiolm_kit.lm.losses import codebook_losses
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.transformer import TransformerConfig

CONFIG = LMConfig(
    num_codebooks=2,
    codebook_size=11,
    transformer=TransformerConfig(dim=16, heads=2, layers=2, cross_attention=True),
    text=TextConfig(kind="t5", dim=12, name="none is loaded"),
)
EVERYTHING = LoRAConfig(
    rank=3,
    alpha=3.0,
    targets=("attention", "cross_attention", "feed_forward", "heads", "text_projection"),
    whole=("norms",),
)


def make_lm(config: LMConfig = CONFIG) -> StreamLM:
    torch.manual_seed(0)
    return StreamLM(config).eval()


def shaken(lm: StreamLM) -> StreamLM:
    """With all that learns moved away from where it begins."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in trained_weights(lm).values():
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return lm


def some_codes() -> Tensor:
    return torch.randint(11, (2, 2, 5), generator=torch.Generator().manual_seed(1))


def context_of(lm: StreamLM) -> Context:
    states = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(2))
    return lm.condition(TextInput(states, torch.tensor([[True, True, True], [True, False, False]])))


def logits_of(lm: StreamLM) -> Tensor:
    return lm(some_codes(), context_of(lm))


def learn(lm: StreamLM, steps: int = 1) -> None:
    optimizer = torch.optim.AdamW(trained_weights(lm).values(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        codebook_losses(logits_of(lm), some_codes(), torch.ones(2, 5, dtype=torch.bool)).sum().backward()
        optimizer.step()


# --- adding


def test_a_new_adapter_changes_nothing_at_all() -> None:
    adapted = add(make_lm(), EVERYTHING)
    assert torch.equal(logits_of(adapted), logits_of(make_lm()))
    assert torch.equal(adapted.step_logits(some_codes()), make_lm().step_logits(some_codes()))


def test_the_models_own_weights_keep_their_names() -> None:
    plain, adapted = make_lm().state_dict(), add(make_lm(), EVERYTHING).state_dict()
    assert all(torch.equal(adapted[name], weight) for name, weight in plain.items())
    assert all(".adapters." in name for name in adapted.keys() - plain.keys())


def test_adapters_and_what_is_named_learn_and_nothing_else() -> None:
    lm, before = add(make_lm(), EVERYTHING), make_lm().state_dict()
    learn(lm, steps=2)  # A learns from the second step on: B was zero
    after = lm.state_dict()
    moved = {name for name in before if not torch.equal(after[name], before[name])}
    assert moved == {name for name in before if "norm" in name and name.startswith("transformer.")}
    fresh = add(make_lm(), EVERYTHING).state_dict()
    assert [name for name in after.keys() - before.keys() if torch.equal(after[name], fresh[name])] == []


def test_each_codebook_and_each_fused_matrix_has_an_adapter_of_its_own() -> None:
    lm = add(make_lm(), EVERYTHING)
    layer = lm.transformer.layers[0]
    fused = (layer.attention.query_key_value, layer.cross_attention.key_value, lm.heads)
    assert [tuple(each.adapters) for each in fused] == [("query", "key", "value"), ("key", "value"), ("0", "1")]
    assert {tuple(adapter.a.shape) for each in fused for adapter in each.adapters.values()} == {(3, 16)}


def test_a_named_matrix_is_changed_and_its_neighbours_are_not() -> None:
    lm = shaken(add(make_lm(), LoRAConfig(rank=2, targets=("attention.query", "attention.value"))))
    layer, plain = lm.transformer.layers[0], make_lm().transformer.layers[0]
    found = layer.attention.query_key_value.weight.chunk(3)
    expected = plain.attention.query_key_value.weight.chunk(3)
    assert [torch.equal(*pair) for pair in zip(found, expected, strict=True)] == [False, True, False]
    assert not isinstance(layer.attention.output, AdaptedLinear)
    assert not isinstance(layer.cross_attention.query, AdaptedLinear)
    x = torch.randn(2, 5, 16)
    fused = layer.attention.query_key_value
    torch.testing.assert_close(fused(x), torch.nn.functional.linear(x, fused.weight))


def test_dropout_is_drawn_in_training_alone() -> None:
    lm = shaken(add(make_lm(), LoRAConfig(rank=2, dropout=0.5)))
    assert torch.equal(logits_of(lm), logits_of(lm))
    lm.train()
    assert not torch.equal(logits_of(lm), logits_of(lm))


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(3)
        lm = shaken(add(make_lm(), LoRAConfig(rank=2, dropout=0.5))).train()
        lm.transformer.checkpointing = checkpointing
        torch.manual_seed(4)
        logits_of(lm).logsumexp(-1).sum().backward()
        gradients.append({name: weight.grad for name, weight in trained_weights(lm).items()})
    assert all(each is not None and bool(each.any()) for each in gradients[0].values())
    torch.testing.assert_close(gradients[1], gradients[0])


# --- merging


@pytest.mark.parametrize("config", [EVERYTHING, LoRAConfig(rank=40, alpha=3.0), LoRAConfig(1, targets=("heads",))])
def test_merged_it_computes_the_same_with_plain_weights_of_the_old_names(config: LoRAConfig) -> None:
    lm = shaken(add(make_lm(), config))
    plain = merge(lm, config)
    assert type(plain.heads) is type(plain.transformer.layers[0].attention.output) is torch.nn.Linear
    assert plain.state_dict().keys() == make_lm().state_dict().keys()
    torch.testing.assert_close(logits_of(plain), logits_of(lm), atol=1e-5, rtol=0)
    torch.testing.assert_close(plain.step_logits(some_codes()), lm.step_logits(some_codes()), atol=1e-5, rtol=0)
    assert not torch.allclose(logits_of(plain), logits_of(make_lm()), atol=1e-2)


def test_merging_leaves_the_adapted_model_alone() -> None:
    lm = shaken(add(make_lm(), EVERYTHING))
    before = {name: weight.clone() for name, weight in lm.state_dict().items()}
    merge(lm, EVERYTHING)
    assert all(torch.equal(weight, before[name]) for name, weight in lm.state_dict().items())


def test_alpha_over_rank_is_how_much_is_added() -> None:
    lm = shaken(add(make_lm(), LoRAConfig(rank=2, alpha=8.0, targets=("feed_forward.up",))))
    name = "transformer.layers.0.feed_forward.up"
    weights = lm.state_dict()
    added = (
        merged(weights, LoRAConfig(2, 8.0, targets=("feed_forward.up",)))[f"{name}.weight"] - weights[f"{name}.weight"]
    )
    b, a = (weights[f"{name}.adapters.up.{each}"] for each in "ba")
    torch.testing.assert_close(added, 4 * b @ a)


# --- folders


def test_adapters_come_back_from_their_folder_upon_their_base(tmp_path: Path) -> None:
    lm = shaken(add(make_lm(), EVERYTHING))
    save_adapters(Adapters(EVERYTHING, checkpoint.fingerprint(make_lm()), trained_weights(lm)), tmp_path / "learned")
    found = load_adapters(tmp_path / "learned")
    assert found.config == EVERYTHING
    base = make_lm()
    state = torch.random.get_rng_state()
    assert torch.equal(logits_of(adapt(base, found)), logits_of(lm))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {path.name for path in (tmp_path / "learned").iterdir()} == {"config.json", "model.safetensors"}


def test_adapters_of_another_base_are_refused(tmp_path: Path) -> None:
    save_adapters(Adapters(EVERYTHING, "0ther", {}), tmp_path)
    with pytest.raises(ValueError, match="belong to the model 0ther, this one is") as refusal:
        adapt(make_lm(), load_adapters(tmp_path))
    assert "\n" not in str(refusal.value)


def test_adapters_that_are_not_whole_are_refused_by_name(tmp_path: Path) -> None:
    weights = dict(trained_weights(add(make_lm(), EVERYTHING)))
    del weights["heads.adapters.1.b"]
    save_adapters(Adapters(EVERYTHING, checkpoint.fingerprint(make_lm()), weights), tmp_path)
    with pytest.raises(ValueError, match=r"lacks tensors \(1\): heads.adapters.1.b"):
        adapt(make_lm(), load_adapters(tmp_path))


def test_a_folder_that_holds_no_adapters_is_refused(tmp_path: Path) -> None:
    checkpoint.save(make_lm(), tmp_path / "lm")
    with pytest.raises(ValueError, match="holds a StreamLM, wanted a LoRA"):
        load_adapters(tmp_path / "lm")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="is no checkpoint"):
        save_adapters(Adapters(EVERYTHING, "", {}), tmp_path / "mine")


def test_a_checkpoint_is_merged_whole_from_its_folders(trained: Path, tmp_path: Path) -> None:
    config = LoRAConfig(rank=2, targets=("attention", "heads"))
    lm = checkpoint.load(StreamLM, trained / "lm")
    base = checkpoint.fingerprint(lm)
    save_adapters(Adapters(config, base, trained_weights(shaken(add(lm, config)))), tmp_path / "learned")
    merge_folder(trained, tmp_path / "learned", tmp_path / "merged")
    model = AudioGen.load(tmp_path / "merged")  # which compares all fingerprints
    assert model.fingerprints["lm"] != base
    assert {path.name for path in (tmp_path / "merged").iterdir()} == {path.name for path in trained.iterdir()}
    torch.testing.assert_close(model.lm.step_logits(some_codes()), lm.step_logits(some_codes()), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="belong to the model"):
        merge_folder(tmp_path / "merged", tmp_path / "learned", tmp_path / "twice")
    assert not (tmp_path / "twice").exists()
    with pytest.raises(ValueError, match="holds a LoRA, wanted an AudioGen"):
        merge_folder(tmp_path / "learned", tmp_path / "learned", tmp_path / "twice")


def test_one_changed_weight_makes_another_base(trained: Path, tmp_path: Path) -> None:
    other = checkpoint.load(StreamLM, trained / "lm")
    with torch.no_grad():
        other.heads.weight[0, 0] += 1
    checkpoint.save(other, tmp_path / "lm")
    learned = Adapters(LoRAConfig(1), checkpoint.fingerprint(checkpoint.load(StreamLM, trained / "lm")), {})
    with pytest.raises(ValueError, match="give the one they were trained on"):
        adapt(checkpoint.load(StreamLM, tmp_path / "lm"), learned)


# --- sizes and refusals


def test_rank_8_on_the_queries_and_values_of_musicgen_small_is_a_few_megabytes() -> None:
    transformer = TransformerConfig(dim=1024, heads=16, layers=24, cross_attention=True)
    with torch.device("meta"):
        lm = StreamLM(LMConfig(4, 2048, transformer=transformer, text=TextConfig(kind="t5", dim=768)))
        add(lm, LoRAConfig(rank=8, targets=("attention.query", "attention.value")))
    learned = sum(weight.numel() for weight in trained_weights(lm).values())
    assert learned == 24 * 2 * 8 * (1024 + 1024)  # 3.1 MB in float32
    assert learned < 0.002 * sum(weight.numel() for weight in lm.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": -1}, "lora rank is -1"),
        ({"rank": 1, "alpha": 0.0}, "lora alpha is 0.0"),
        ({"rank": 1, "dropout": 1.0}, "lora dropout is 1.0"),
        ({"rank": 1, "targets": ("q_proj",)}, "lora targets has q_proj, wanted some of attention, "),
        ({"rank": 1, "whole": ("biases",)}, "lora whole has biases, wanted some of norms, "),
        ({"rank": 1, "targets": ()}, "targets are none"),
        ({"whole": ("norms",)}, "rank is 0, so all weights learn"),
        ({"rank": 1, "targets": ("heads",), "whole": ("heads",)}, "both have heads"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        LoRAConfig(**options)
    assert "\n" not in str(refusal.value)


def test_what_a_model_lacks_and_second_adapters_are_refused() -> None:
    wordless = LMConfig(2, 11, transformer=TransformerConfig(dim=16, heads=2, layers=1))
    with pytest.raises(ValueError, match="targets has cross_attention, and the model has no cross_attention"):
        add(make_lm(wordless), LoRAConfig(rank=1))
    with pytest.raises(ValueError, match="whole has text_encoder, and the model has no text_encoder"):
        add(make_lm(), LoRAConfig(rank=1, whole=("text_encoder",)))
    with pytest.raises(ValueError, match="lora rank is 0"):
        add(make_lm(), LoRAConfig())
    with pytest.raises(ValueError, match="adapters already"):
        add(add(make_lm(), LoRAConfig(rank=1)), LoRAConfig(rank=1))


def test_a_config_survives_json() -> None:
    assert checkpoint.from_plain(LoRAConfig, asdict(EVERYTHING), "config") == EVERYTHING
