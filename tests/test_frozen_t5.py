"""The frozen T5 reads as transformers' does, is told apart by all that counts, and its states on disk are its own."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from audiolm_kit import conditioning, frozen_t5, text_cache
from audiolm_kit.conditioning import (
    TextConditioner,
    TextConfig,
)
from audiolm_kit.frozen_t5 import FrozenT5

CAPTIONS = ["a dog barks twice", "rain", "a bell rings and a siren wails far away"]
SaveTokenizer = Callable[..., None]
MakeConfig = Callable[..., Any]


@pytest.fixture(scope="module")
def flan(tmp_path_factory: pytest.TempPathFactory, save_t5_tokenizer: SaveTokenizer, t5_config: MakeConfig) -> str:
    """As published T5 v1.1 and FLAN-T5 are: encoder, decoder and head, gated GELU, untied embeddings."""
    from transformers import T5ForConditionalGeneration

    folder = str(tmp_path_factory.mktemp("flan"))
    save_t5_tokenizer(folder)
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

    for module in (conditioning, frozen_t5):
        monkeypatch.setattr(module, "FrozenT5", Counted)
    monkeypatch.setattr(text_cache, "SETTLED", 0.0)
    return names


# --- as published


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


def test_a_tokenizer_of_another_t5_is_refused(flan: str, tmp_path: Path, save_t5_tokenizer: SaveTokenizer) -> None:
    folder = shutil.copytree(flan, tmp_path / "flan")
    save_t5_tokenizer(folder, *map(str, range(9)))
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


def test_another_t5_under_the_same_name_gets_other_states(
    t5: str, tmp_path: Path, loads: list[str], t5_config: MakeConfig
) -> None:
    name = str(shutil.copytree(t5, tmp_path / "t5"))
    before = cached(name, tmp_path / "cache").prepare(["rain"])
    from transformers import T5EncoderModel

    torch.manual_seed(9)
    T5EncoderModel(t5_config()).save_pretrained(name)
    after = cached(name, tmp_path / "cache").prepare(["rain"])
    assert not torch.allclose(before.content, after.content)
    assert len(loads) == 2 and len(list((tmp_path / "cache").glob("[0-9a-f]*/*.safetensors"))) == 2


def test_a_t5_that_changes_under_a_run_is_refused(
    t5: str, tmp_path: Path, loads: list[str], t5_config: MakeConfig
) -> None:
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
