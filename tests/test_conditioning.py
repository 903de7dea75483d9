"""Laws of conditioning: the null context, dropping by item, both readers of captions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audiolm_kit.conditioning import Context, SmallTextEncoder, TextConditioner, TextConfig, drop, with_null
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.text import Vocabulary, train
from audiolm_kit.transformer import TransformerConfig

CAPTIONS = ["a dog barks twice", "rain", "a bell rings and a siren wails far away"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    with pytest.warns(UserWarning):
        return train(CAPTIONS, tmp_path_factory.mktemp("text") / "text.model")


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a real T5 encoder of random weights and a real tokenizer, both tiny."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    folder = str(tmp_path_factory.mktemp("t5"))
    words = ["<pad>", "</s>", "<unk>", *sorted({word for text in CAPTIONS for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(words), d_model=12, d_kv=4, d_ff=16, num_layers=2, num_heads=3)
    T5EncoderModel(config).save_pretrained(folder)
    return folder


def tiny_lm(text: TextConfig) -> StreamLM:
    torch.manual_seed(0)
    transformer = TransformerConfig(dim=16, heads=2, layers=2, cross_attention=True)
    return StreamLM(LMConfig(num_codebooks=2, codebook_size=7, transformer=transformer, text=text)).eval()


def readers(vocabulary: Vocabulary, t5: str) -> list[tuple[StreamLM, TextConditioner]]:
    """A model and its conditioner of each kind."""
    small = TextConfig(kind="small", dim=8, layers=1, heads=2, pieces=vocabulary.size)
    frozen = TextConfig(kind="t5", dim=12, name=t5)
    return [(tiny_lm(small), TextConditioner(small, vocabulary)), (tiny_lm(frozen), TextConditioner(frozen))]


def test_caption_alone_and_in_a_batch_of_longer_ones_give_the_same_logits(vocabulary: Vocabulary, t5: str) -> None:
    codes = torch.randint(7, (3, 2, 5), generator=torch.Generator().manual_seed(0))
    for lm, conditioner in readers(vocabulary, t5):
        together = lm(codes, lm.condition(conditioner.prepare(CAPTIONS)))
        for i, caption in enumerate(CAPTIONS):
            alone = lm(codes[i : i + 1], lm.condition(conditioner.prepare([caption])))
            torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(together[:1], lm(codes[:1], lm.condition(conditioner.prepare(CAPTIONS[2:]))))


def test_empty_caption_is_exactly_the_null_context_whatever_stands_beside_it(vocabulary: Vocabulary, t5: str) -> None:
    codes = torch.randint(7, (2, 2, 5), generator=torch.Generator().manual_seed(0))
    for lm, conditioner in readers(vocabulary, t5):
        nothing = lm(codes)[1]
        for beside in CAPTIONS:
            assert torch.equal(lm(codes, lm.condition(conditioner.prepare([beside, ""])))[1], nothing)


def test_conditioner_states_are_those_of_transformers(t5: str) -> None:
    from transformers import AutoTokenizer, T5EncoderModel

    states, mask = TextConditioner(TextConfig(kind="t5", dim=12, name=t5)).prepare(CAPTIONS)
    inputs = AutoTokenizer.from_pretrained(t5)(CAPTIONS, return_tensors="pt", padding=True)
    with torch.no_grad():
        theirs = T5EncoderModel.from_pretrained(t5).eval()(**inputs).last_hidden_state
    torch.testing.assert_close(states[mask], theirs[mask])
    assert mask.sum(dim=1).tolist() == [5, 2, 10]  # words and the end of text
    assert not states.requires_grad


def test_model_owns_the_projection_and_not_the_t5(vocabulary: Vocabulary, t5: str) -> None:
    (small, _), (frozen, _) = readers(vocabulary, t5)
    of_text = [name for name in frozen.state_dict() if "text" in name]
    assert of_text == ["text_projection.weight", "text_projection.bias"]
    assert any(name.startswith("text_encoder.") for name in small.state_dict())


def test_bfloat16_around_it_leaves_t5_in_float32(t5: str) -> None:
    conditioner = TextConditioner(TextConfig(kind="t5", dim=12, name=t5))
    plain = conditioner.prepare(CAPTIONS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conditioner.prepare(CAPTIONS).content, plain.content)


def test_small_encoder_sees_both_ways_but_no_padding() -> None:
    torch.manual_seed(0)
    encoder = SmallTextEncoder(TextConfig(kind="small", dim=8, layers=1, heads=2, pieces=10)).double()
    pieces = torch.tensor([[3, 4, 5, 0, 0]])
    mask = pieces > 0
    states = encoder(pieces, mask)
    torch.testing.assert_close(encoder(pieces[:, :3], mask[:, :3]), states[:, :3])
    last_changed = encoder(torch.tensor([[3, 4, 6, 0, 0]]), mask)
    assert not torch.allclose(last_changed[:, 0], states[:, 0])


def test_drop_draws_a_coin_for_each_row() -> None:
    mask = torch.ones(2000, 3, dtype=torch.bool)
    mask[:, 2] = False
    context = Context(torch.randn(2000, 3, 4), mask)
    dropped = drop(context, 0.25, torch.Generator().manual_seed(0))
    kept = dropped.mask.any(dim=1)
    assert 0.2 < 1 - kept.float().mean() < 0.3
    assert torch.equal(dropped.mask[kept], mask[kept]) and torch.equal(context.mask, mask)
    again = drop(context, 0.25, torch.Generator().manual_seed(0))
    assert torch.equal(again.mask, dropped.mask)
    assert drop(context, 0.0).mask[:, :2].all() and not drop(context, 1.0).mask.any()


def test_with_null_puts_as_many_null_rows_behind() -> None:
    context = Context(torch.randn(2, 3, 4), torch.tensor([[True, True, True], [True, False, False]]))
    states, mask = with_null(context)
    assert torch.equal(states[:2], context.states) and torch.equal(mask[:2], context.mask)
    assert states.shape == (4, 3, 4) and not mask[2:].any()


def test_what_cannot_be_conditioned_on_is_refused_in_one_line(vocabulary: Vocabulary, t5: str, tmp_path: Path) -> None:
    for act in (
        lambda: TextConfig(kind="clap"),
        lambda: TextConfig(kind="small", dim=9, heads=2),
        lambda: TextConfig(kind="small", pieces=0),
        lambda: TextConditioner(TextConfig(kind="small")),
        lambda: TextConditioner(TextConfig(kind="small", pieces=vocabulary.size - 1), vocabulary),
        lambda: TextConditioner(TextConfig()).prepare(["rain"]),
        lambda: TextConditioner(TextConfig(kind="t5", dim=768, name=t5)),
        lambda: TextConditioner(TextConfig(kind="t5", dim=12, name=str(tmp_path / "nowhere"))),
    ):
        with pytest.raises((ValueError, FileNotFoundError)) as refusal:
            act()
        assert "\n" not in str(refusal.value)
