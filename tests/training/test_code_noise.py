"""LMTask with code_noise: some of the codes that others are told from are chance, none of those that are learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from small_runs import CAPTIONS, QUIET, a_codec, make_trainer
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.data.modules import TokenData
from audiolm_kit.data.shards import TokenFormat, TokenRow, write_shards
from audiolm_kit.lm.losses import loss
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.training.lm import LMTask
from audiolm_kit.transformer import TransformerConfig

pytestmark = QUIET

BOOKS, SIZE = 2, 16
LM = LMConfig(num_codebooks=BOOKS, codebook_size=SIZE, transformer=TransformerConfig(dim=32, heads=2, layers=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec and shards of its codes: ``codec``, ``tokens``."""
    path = tmp_path_factory.mktemp("noise")
    torch.manual_seed(0)
    codec = NeuralCodec(a_codec())
    checkpoint.save(codec, path / "codec")
    token_format = TokenFormat(checkpoint.fingerprint(codec), BOOKS, SIZE, codec.frame_rate, codec.sample_rate)
    rows = [TokenRow(torch.randint(0, SIZE, (BOOKS, 200)), CAPTIONS[number % 4]) for number in range(8)]
    write_shards(path / "tokens", rows, token_format, rows_per_shard=3)
    return path


def learned_and_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code_noise: tuple[float, ...]
) -> list[Tensor]:
    """What the steps of a run learn, and what they read in its place: [N, K, T] each; none where it is the same."""
    noted: list[tuple[Tensor, Tensor | None]] = []
    learn = StreamLM.loss

    def note(model: StreamLM, codes: Tensor, mask: Tensor, *given: Tensor | None) -> Tensor:
        noted.append((codes, given[2]))
        return learn(model, codes, mask, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(StreamLM, "loss", note)
    pl.seed_everything(1, verbose=False)
    task = LMTask(LM, str(folder / "codec"), code_noise=code_noise)
    make_trainer(tmp_path, 8, enable_checkpointing=False).fit(task, TokenData(str(folder / "tokens"), 200, 8))
    return [
        torch.cat([each for each in kind if each is not None] or [torch.zeros(0)]) for kind in zip(*noted, strict=True)
    ]


def test_what_is_read_is_chance_up_to_the_shares_and_what_is_learned_is_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned, read = learned_and_read(folder, tmp_path, monkeypatch, (0.5, 1.0))
    plain, nothing = learned_and_read(folder, tmp_path, monkeypatch, ())
    assert torch.equal(learned, plain) and not len(nothing)
    for book, most in enumerate((0.5, 1.0)):
        shares = (read != learned)[:, book].float().mean(dim=1)
        assert 0.4 * most < shares.mean() < 0.55 * most  # half of it, and of these one in sixteen is what it was
        assert shares.min() < 0.15 * most and 0.8 * most < shares.max() < 1.05 * most  # a share for each row
    assert read.min() == 0 and read.max() == SIZE - 1


def test_the_last_share_is_that_of_all_further_codebooks(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned, read = learned_and_read(folder, tmp_path, monkeypatch, (0.9,))
    assert (read != learned)[:, 1].float().mean() > 0.3


def test_a_code_is_told_from_what_is_read_before_it() -> None:
    torch.manual_seed(0)
    model = StreamLM(LM)
    codes, read = torch.randint(0, SIZE, (2, 3, BOOKS, 9))
    mask = torch.ones(3, 9, dtype=torch.bool)
    torch.testing.assert_close(model.loss(codes, mask, read=read), loss(model(read), codes, mask))
    torch.testing.assert_close(model.loss(codes, mask, read=codes), model.loss(codes, mask))
    assert not torch.isclose(model.loss(codes, mask, read=read), model.loss(codes, mask))


def test_more_than_all_codes_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"code_noise is 1.5, wanted a share from 0 to 1"):
        LMTask(LM, str(folder / "codec"), code_noise=[1.5])


def test_more_shares_than_codebooks_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"code_noise has 3 shares for 2 codebooks: give fewer"):
        LMTask(LM, str(folder / "codec"), code_noise=[0.1, 0.2, 0.3])
