"""Laws of conditioning: the null context, dropping by item, all readers of captions, the T5's states on disk."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from audiolm_kit import checkpoint, conditioning, text_cache
from audiolm_kit.conditioning import (
    Context,
    FrozenT5,
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


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a real T5 encoder of random weights and a real tokenizer, both tiny."""
    from transformers import T5EncoderModel

    folder = str(tmp_path_factory.mktemp("t5"))
    save_tokenizer(folder)
    torch.manual_seed(0)
    T5EncoderModel(t5_config()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def flan(tmp_path_factory: pytest.TempPathFactory) -> str:
    """As published T5 v1.1 and FLAN-T5 are: encoder, decoder and head, gated GELU, untied embeddings."""
    from transformers import T5ForConditionalGeneration

    folder = str(tmp_path_factory.mktemp("flan"))
    save_tokenizer(folder)
    torch.manual_seed(1)
    config = t5_config(feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What T5s were loaded; and files count as settled at once."""
    names: list[str] = []

    class Counted(FrozenT5):
        def __init__(self, name: str, dim: int) -> None:
            names.append(name)
            super().__init__(name, dim)

    monkeypatch.setattr(conditioning, "FrozenT5", Counted)
    monkeypatch.setattr(text_cache, "SETTLED", 0.0)
    return names


def save_tokenizer(folder: str, *more: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", *sorted({word for text in CAPTIONS for word in text.split()}), *more]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def t5_config(**options: Any) -> Any:
    from transformers import T5Config

    return T5Config(vocab_size=20, d_model=12, d_kv=4, d_ff=16, num_layers=2, num_heads=3, **options)


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


# --- T5 of other makes


@pytest.mark.parametrize("make", ["safetensors", "bin", "half"])
def test_flan_t5_reads_as_transformers_reads_it_whatever_file_its_weights_lie_in(
    make: str, flan: str, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    whole = T5ForConditionalGeneration.from_pretrained(flan, dtype=torch.float32)
    folder = Path(shutil.copytree(flan, tmp_path / "flan"))
    if make == "half":
        whole.half().save_pretrained(folder)
    if make == "bin":
        (folder / "model.safetensors").unlink()
        torch.save(whole.state_dict(), folder / "pytorch_model.bin")
    states, mask = TextConditioner(TextConfig(kind="t5", dim=12, name=str(folder))).prepare(CAPTIONS)
    inputs = AutoTokenizer.from_pretrained(flan)(CAPTIONS, return_tensors="pt", padding=True)
    with torch.no_grad():
        theirs = whole.float().encoder(**inputs).last_hidden_state
    torch.testing.assert_close(states[mask], theirs[mask])
    same = FrozenT5(flan, 12).fingerprint() == FrozenT5(str(folder), 12).fingerprint()
    assert same == (make != "half")  # rounded weights are others


def test_a_t5_without_all_its_encoder_is_refused_and_not_made_up(flan: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(flan, tmp_path / "flan"))
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "encoder.block.1.layer.1" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks \d+ weights of a T5 encoder, encoder\.block\.1"):
        FrozenT5(str(folder), 12)


def test_a_tokenizer_of_another_t5_is_refused(flan: str, tmp_path: Path) -> None:
    folder = shutil.copytree(flan, tmp_path / "flan")
    save_tokenizer(folder, *map(str, range(9)))
    with pytest.raises(ValueError, match="has 2. pieces, its T5 takes 20"):
        FrozenT5(str(folder), 12)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_cut_off_t5_is_refused_in_one_line(name: str, flan: str, tmp_path: Path) -> None:
    path = Path(shutil.copytree(flan, tmp_path / "flan")) / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FileNotFoundError, match="no T5 at") as refusal:
        FrozenT5(str(path.parent), 12)
    assert "\n" not in str(refusal.value)


def test_a_tokenizer_that_needs_protobuf_says_so_or_reads(flan: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(flan, tmp_path / "flan"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "spiece.model").write_bytes(spiece_model())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0}))
    try:
        import google.protobuf  # noqa: F401
    except ImportError:
        with pytest.raises(FileNotFoundError, match=r"spiece\.model.*pip install audiolm_kit\[text\]"):
            FrozenT5(str(folder), 12)
    else:
        states, mask = FrozenT5(str(folder), 12)(["a", ""])
        assert mask.sum(dim=1).tolist() == [2, 0] and states.isfinite().all()


def spiece_model() -> bytes:
    """A vocabulary as T5's are, of 20 pieces."""
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c", "c a b", "b c a"]),
        model_writer=model,
        vocab_size=20,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


def test_copies_share_the_frozen_t5(t5: str) -> None:
    conditioner = TextConditioner(TextConfig(kind="t5", dim=12, name=t5))
    assert copy.deepcopy(conditioner)._t5 is conditioner._t5


def test_fingerprint_differs_with_one_weight_one_rule_of_the_tokenizer_and_what_the_config_computes(
    t5: str, tmp_path: Path
) -> None:
    one = FrozenT5(t5, 12)
    before = one.fingerprint()
    one(CAPTIONS)  # pads; that is no other tokenizer
    assert one.fingerprint() == before == FrozenT5(t5, 12).fingerprint()
    one.model.get_parameter("encoder.block.1.layer.1.DenseReluDense.wo.weight").data[3, 4] += 1e-7
    assert one.fingerprint() != before
    for place, (name, was, now) in enumerate(
        [("tokenizer.json", '"barks"', '"parks"'), ("config.json", '"relative_attention_max_distance": 128', None)]
    ):
        path = Path(shutil.copytree(t5, tmp_path / str(place))) / name
        assert was in path.read_text()
        path.write_text(path.read_text().replace(was, now or '"relative_attention_max_distance": 64'))
        assert FrozenT5(str(path.parent), 12).fingerprint() != before


# --- states on disk


def cached(t5: str, cache: Path, **options: Any) -> TextConditioner:
    return TextConditioner(TextConfig(kind="t5", dim=12, name=t5, **options), cache=cache)


def test_cached_states_are_those_of_the_t5(t5: str, tmp_path: Path) -> None:
    texts = [*CAPTIONS, "", "rain"]
    states, mask = TextConditioner(TextConfig(kind="t5", dim=12, name=t5)).prepare(texts)
    ours = cached(t5, tmp_path).prepare(texts)
    assert torch.equal(ours.mask, mask) and ours.content.shape == states.shape
    torch.testing.assert_close(ours.content[mask], states[mask])
    assert not ours.content[~mask].any()


def test_cached_rows_are_the_same_bits_in_any_batch_and_in_any_run(t5: str, tmp_path: Path, loads: list[str]) -> None:
    first = cached(t5, tmp_path)
    together = first.prepare(CAPTIONS)
    for conditioner in (first, cached(t5, tmp_path)):
        for place, text in enumerate(CAPTIONS):
            states, mask = conditioner.prepare([text, ""])
            kept = together.mask[place]
            assert torch.equal(states[0][mask[0]], together.content[place][kept])
    assert loads == [t5]


def test_new_captions_are_read_without_padding(t5: str, tmp_path: Path) -> None:
    seen = []

    class Watched(FrozenT5):
        def _states(self, pieces: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            seen.append((pieces.shape, bool(mask.all())))
            return super()._states(pieces, mask)

    texts = [*CAPTIONS, "a siren rings twice", "a bell rings twice"]
    list(Watched(t5, 12).each(texts))
    assert seen == [((1, 2), True), ((3, 5), True), ((1, 10), True)]


def test_t5_is_loaded_only_for_what_the_cache_lacks(t5: str, tmp_path: Path, loads: list[str]) -> None:
    assert cached(t5, tmp_path).fill([*CAPTIONS, "", CAPTIONS[0]]) == 3
    again = cached(t5, tmp_path)
    assert again.fill(CAPTIONS) == 0
    again.prepare([*CAPTIONS, "", " "])
    assert loads == [t5]
    again.prepare(["a dog", "rain"])
    assert loads == [t5, t5]
    assert cached(t5, tmp_path).fill(["a dog"]) == 0


def test_captions_that_hardly_come_again_are_not_kept(t5: str, tmp_path: Path) -> None:
    conditioner = cached(t5, tmp_path)
    one = conditioner.prepare(["a dog rain"], keep=False)
    assert not list(tmp_path.glob("*/*.safetensors"))
    assert torch.equal(conditioner.prepare(["a dog rain"]).content, one.content)
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 1


def test_a_batch_of_blank_captions_needs_no_t5(t5: str, tmp_path: Path, loads: list[str]) -> None:
    cached(t5, tmp_path)
    states, mask = cached(t5, tmp_path).prepare(["", " "])
    assert states.shape == (2, 1, 12) and not mask.any() and loads == [t5]


def test_another_t5_under_the_same_name_gets_other_states(t5: str, tmp_path: Path, loads: list[str]) -> None:
    name = str(shutil.copytree(t5, tmp_path / "t5"))
    before = cached(name, tmp_path / "cache").prepare(["rain"])
    from transformers import T5EncoderModel

    torch.manual_seed(9)
    T5EncoderModel(t5_config()).save_pretrained(name)
    after = cached(name, tmp_path / "cache").prepare(["rain"])
    assert not torch.allclose(before.content, after.content)
    assert len(loads) == 2 and len(list((tmp_path / "cache").glob("[0-9a-f]*/*.safetensors"))) == 2


def test_a_t5_that_changes_under_a_run_is_refused(t5: str, tmp_path: Path, loads: list[str]) -> None:
    from transformers import T5EncoderModel

    name = str(shutil.copytree(t5, tmp_path / "t5"))
    conditioner = cached(name, tmp_path / "cache")
    conditioner.fill(CAPTIONS)
    torch.manual_seed(9)
    T5EncoderModel(t5_config()).save_pretrained(name)
    conditioner.prepare(CAPTIONS)
    with pytest.raises(ValueError, match="has changed while its text states were in use: start again"):
        conditioner.prepare(["a dog"])


def test_files_that_were_written_just_now_are_read_in_full(
    t5: str, tmp_path: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_cache, "SETTLED", 3600.0)
    cached(t5, tmp_path)
    cached(t5, tmp_path)
    assert loads == [t5, t5] and not (tmp_path / "models").exists()


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
