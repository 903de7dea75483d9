"""Laws of conditioning: the null context, dropping by item, all readers of captions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from audiolm_kit import checkpoint, conditioning
from audiolm_kit.conditioning import (
    Context,
    SmallTextEncoder,
    TextConditioner,
    TextConfig,
    caption_texts,
    drop,
    text_folders,
    with_null,
)
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.text import Vocabulary, train
from audiolm_kit.transformer import TransformerConfig

CAPTIONS = ["a dog barks twice", "rain", "a bell rings and a siren wails far away"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    with pytest.warns(UserWarning):
        return train(CAPTIONS, tmp_path_factory.mktemp("text") / "text.model")


def tiny_lm(text: TextConfig) -> StreamLM:
    torch.manual_seed(0)
    transformer = TransformerConfig(dim=16, heads=2, layers=2, cross_attention=True)
    return StreamLM(LMConfig(num_codebooks=2, codebook_size=7, transformer=transformer, text=text)).eval()


def readers(vocabulary: Vocabulary, t5: str) -> list[tuple[StreamLM, TextConditioner]]:
    """A model and its conditioner of each kind."""
    small = TextConfig(kind="small", dim=8, layers=1, heads=2, pieces=vocabulary.size)
    frozen = TextConfig(kind="t5", dim=12, name=t5)
    labels = TextConfig(kind="labels", dim=8, labels=tuple(CAPTIONS))
    return [
        (tiny_lm(small), TextConditioner(small, vocabulary)),
        (tiny_lm(frozen), TextConditioner(frozen)),
        (tiny_lm(frozen), TextConditioner(frozen, cache=Path(t5).with_name("states"))),
        (tiny_lm(labels), TextConditioner(labels)),
    ]


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
    (small, _), (frozen, _), _, (labels, _) = readers(vocabulary, t5)
    of_text = [name for name in frozen.state_dict() if "text" in name]
    assert of_text == ["text_projection.weight", "text_projection.bias"]
    assert any(name.startswith("text_encoder.") for name in small.state_dict())
    assert [name for name in labels.state_dict() if "label" in name] == ["label_embedding.weight"]


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
        lambda: TextConfig(kind="labels"),
        lambda: TextConfig(kind="labels", labels=("dog", "")),
        lambda: TextConfig(kind="labels", labels=("sea_waves", "Sea waves")),
        lambda: TextConditioner(TextConfig(), cache=tmp_path / "cache"),
        lambda: TextConditioner(TextConfig(kind="t5", dim=768, name=t5), cache=tmp_path / "cache"),
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


# --- class labels


def test_a_caption_of_several_labels_has_a_row_of_the_table_for_each_in_its_order() -> None:
    config = TextConfig(kind="labels", dim=8, labels=("dog", "rain", "sea_waves"))
    pieces, mask = TextConditioner(config).prepare(["Sea waves, dog", "rain", "dog and rain and sea waves", ""])
    assert [row[kept].tolist() for row, kept in zip(pieces, mask, strict=True)] == [[2, 0], [1], [0, 1, 2], []]


def test_the_order_of_labels_changes_nothing_for_a_model_without_positions_in_its_context() -> None:
    config = TextConfig(kind="labels", dim=8, labels=("dog", "rain", "wind"))
    lm, conditioner = tiny_lm(config), TextConditioner(config)
    codes = torch.randint(7, (1, 2, 5), generator=torch.Generator().manual_seed(0))
    one, other, another = (
        lm(codes, lm.condition(conditioner.prepare([text]))) for text in ("dog, rain", "rain, dog", "dog, wind")
    )
    torch.testing.assert_close(one, other)
    assert not torch.allclose(one, another)


def test_a_table_of_labels_survives_its_checkpoint(tmp_path: Path) -> None:
    config = TextConfig(kind="labels", dim=8, labels=("dog", "rain"), clean=True)
    lm = tiny_lm(config)
    checkpoint.save(lm, tmp_path / "lm")
    again = checkpoint.load(StreamLM, tmp_path / "lm")
    assert again.config.text == config and again.config.text.labels == ("dog", "rain")
    assert checkpoint.fingerprint(again) == checkpoint.fingerprint(lm)


def test_an_unknown_label_is_told_before_training_and_in_it() -> None:
    conditioner = TextConditioner(TextConfig(kind="labels", labels=("dog", "rain")))
    for act in (conditioner.fill, conditioner.prepare):
        with pytest.raises(ValueError, match=r"unknown label 'dgo', the closest known one is 'dog'.*config\.json"):
            act(["dog and rain", "rain, dgo"])
    assert conditioner.fill(["dog and rain", ""]) == 0


# --- from a checkpoint


def test_what_reads_captions_is_opened_from_a_folder_or_a_vocabulary(
    vocabulary: Vocabulary, t5: str, tmp_path: Path
) -> None:
    small = TextConfig(kind="small", pieces=vocabulary.size)
    expected = TextConditioner(small, vocabulary).prepare(CAPTIONS).content
    for name in (conditioning.TEXT_MODEL, "other.model"):
        (tmp_path / name).write_bytes(vocabulary.model)
    for where in (tmp_path, tmp_path / "other.model"):
        assert torch.equal(TextConditioner.load(small, where).prepare(CAPTIONS).content, expected)
    with pytest.raises(FileNotFoundError):
        TextConditioner.load(small, tmp_path / "nowhere.model")
    shutil.copytree(t5, tmp_path / "text_encoder")
    own, named = (TextConfig(kind="t5", dim=12, name=name) for name in ("./text_encoder", t5))
    conditioner = TextConditioner.load(own, tmp_path)
    assert text_folders(conditioner) == {"text_encoder": tmp_path / "text_encoder"}
    assert text_folders(TextConditioner.load(named, tmp_path)) == text_folders(None) == {}
    assert torch.equal(conditioner.prepare(CAPTIONS).content, TextConditioner(named).prepare(CAPTIONS).content)


# --- cleaning


def test_cleaned_captions_of_one_meaning_are_one_row(t5: str, vocabulary: Vocabulary, tmp_path: Path) -> None:
    texts = ["A dog barks, twice!", "the dogs are barking twice", "..."]
    config = TextConfig(kind="t5", dim=12, name=t5, clean=True)
    for conditioner in (
        TextConditioner(config),
        TextConditioner(config, cache=tmp_path),
        TextConditioner(TextConfig(kind="small", clean=True, pieces=vocabulary.size), vocabulary),
    ):
        content, mask = conditioner.prepare(texts)
        torch.testing.assert_close(content[0], content[1])
        assert mask.any(dim=1).all()  # what has no words is not taken for the null context


def test_caption_texts_are_what_the_reader_gets() -> None:
    texts = ["A dog barks!", "It is", "?!", "", " "]
    assert caption_texts(TextConfig(kind="t5", clean=True), texts) == ["dog bark", "it is", "?!", "", ""]
    for config in (TextConfig(kind="t5"), TextConfig(kind="labels", labels=("a",), clean=True)):
        assert caption_texts(config, texts) == texts


def test_what_cleaning_takes_is_missed_at_once(monkeypatch: pytest.MonkeyPatch, vocabulary: Vocabulary) -> None:
    def missing(text: str) -> str:
        raise ValueError("pip install audiolm_kit[text]")

    monkeypatch.setattr(conditioning, "clean", missing)
    with pytest.raises(ValueError, match="pip install"):
        TextConditioner(TextConfig(kind="small", clean=True, pieces=vocabulary.size), vocabulary)
