"""LMTask with codebook_init: codes begin with what they stand for, and a run that goes on does not begin again."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from small_runs import CAPTIONS, QUIET, Losses, a_codec, make_trainer

from audiolm_kit import checkpoint
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.data.modules import TokenData
from audiolm_kit.data.shards import TokenFormat, TokenRow, write_shards
from audiolm_kit.lm.model import LMConfig
from audiolm_kit.training.lm import LMTask
from audiolm_kit.training.stages import Tokenizer, entries
from audiolm_kit.transformer import TransformerConfig

pytestmark = QUIET

LM = LMConfig(num_codebooks=2, codebook_size=16, transformer=TransformerConfig(dim=32, heads=2, layers=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec and shards of its codes: ``codec``, ``tokens``."""
    path = tmp_path_factory.mktemp("begun")
    torch.manual_seed(0)
    codec = NeuralCodec(a_codec())
    checkpoint.save(codec, path / "codec")
    token_format = TokenFormat(checkpoint.fingerprint(codec), 2, 16, codec.frame_rate, codec.sample_rate)
    rows = [TokenRow(torch.randint(0, 16, (2, 6 + number)), CAPTIONS[number % 4]) for number in range(8)]
    write_shards(path / "tokens", rows, token_format, rows_per_shard=3)
    return path


def make_task(folder: Path) -> LMTask:
    pl.seed_everything(1, verbose=False)
    optimizer = lambda groups: torch.optim.AdamW(groups, lr=3e-3)  # noqa: E731
    return LMTask(LM, str(folder / "codec"), optimizer=optimizer, codebook_init=True)


def make_data(folder: Path) -> TokenData:
    return TokenData(str(folder / "tokens"), frames=10, batch_size=4)


def test_codes_begin_with_what_they_stand_for(folder: Path, tmp_path: Path) -> None:
    class Begun(Callback):
        def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
            self.weights = {name: value.clone() for name, value in task.lm.state_dict().items()}

    begun = Begun()
    task = make_task(folder)
    make_trainer(tmp_path, 1, begun).fit(task, make_data(folder))
    entries = checkpoint.load(NeuralCodec, folder / "codec").entries
    made = begun.weights["embedding.weight"].view(2, 17, 32)[:, :16]
    for book in range(2):  # four dimensions span all sixteen embeddings, and in each the same codes lie near each other
        assert int(torch.linalg.matrix_rank(made[book] - made[book].mean(0), rtol=1e-4)) == entries.shape[2]
    heads = begun.weights["heads.weight"].view(2, 16, 32)
    assert int(torch.linalg.matrix_rank(heads[0] - heads[0].mean(0), rtol=1e-4)) == entries.shape[2]


def test_a_run_that_goes_on_does_not_begin_again(folder: Path, tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_last=True, save_top_k=0)
    whole, parts = Losses(), Losses()
    make_trainer(tmp_path / "whole", 4, whole).fit(make_task(folder), make_data(folder))
    make_trainer(tmp_path / "first", 2, saved).fit(make_task(folder), make_data(folder))
    again = make_trainer(tmp_path / "second", 4, parts)
    again.fit(make_task(folder), make_data(folder), ckpt_path=str(tmp_path / "last.ckpt"))
    assert parts.values == whole.values[2:]


def test_tokenizers_without_codebooks_of_ours_are_refused(folder: Path) -> None:
    data = make_data(folder)
    data.setup("fit")
    with pytest.raises(ValueError, match="codebook_init needs codebooks of ours, and elsewhere holds a Identity"):
        entries(data, {"codec": Tokenizer(torch.nn.Identity(), "", "elsewhere")})
