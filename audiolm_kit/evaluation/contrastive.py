"""A small CLAP of one's own: sounds and captions as points of one space, where a sound lies near its caption.

Contrastive language-audio pretraining (Wu et al. 2023, arXiv:2211.06687) needs no more than recordings with captions;
for a narrow subject, as spoken digits are, minutes of training make a better judge of takes than any large model that
has never met it. ``ContrastiveTask`` trains one. B batch, L samples, M mel bands, S spectral frames, C channels, N
sounds or captions, W windows, D width of the space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm_kit import audio, checkpoint
from audiolm_kit.audio import Sound
from audiolm_kit.conditioning import SmallTextEncoder, TextConditioner, TextConfig, text_files, text_folders
from audiolm_kit.evaluation.perceptual import BATCH, windows
from audiolm_kit.text import TextInput

KIND = "ContrastiveScorer"
PART = "model"
"""Where the network lies in its checkpoint folder."""
SCORER = "scorer"
"""The folder of one in the checkpoint of a model that brings it."""
QUIETEST = math.log(1e-5)
"""Of a window's loudest band: a window that is softer, some 100 dB under full scale, is silent and not turned up."""
HOTTEST = math.log(100.0)
"""Of the logarithm of what cosines are multiplied by before the softmax, as in CLIP (arXiv:2103.00020, section 2.5)."""


@dataclass(frozen=True)
class ContrastiveConfig:
    """How a small CLAP listens and reads."""

    sample_rate: int = 16000
    """Hertz; sounds of any rate are given."""
    seconds: float = 1.0
    """Heard at once. Longer sounds are cut into windows, of which the mean counts; shorter ones end in silence."""
    fft_size: int = 512
    hop: int = 160
    """Samples between two spectral frames."""
    mels: int = 40
    """Bands of the spectrogram."""
    range_db: float = 70.0
    """What is so far below a window's loudest band, or farther, is silence; how loud a sound is does not matter."""
    filters: tuple[int, ...] = (24, 48, 64)
    """Of the convolutions; each halves time and frequency."""
    dim: int = 64
    """Width of the space."""
    dropout: float = 0.3
    """Of what convolutions have found, while it learns."""
    text: TextConfig = TextConfig(kind="small", dim=64, layers=1, heads=4, pieces=200)
    """How captions are read; any kind but none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "filters", tuple(self.filters))  # a parser may bring a list
        if not self.filters or min(self.filters) < 1:
            raise ValueError(f"filters is {list(self.filters)}: give a positive number for each convolution")
        if self.mels >> len(self.filters) < 1 or self.frames >> len(self.filters) < 1:
            raise ValueError(
                f"{len(self.filters)} convolutions halve {self.mels} mel bands and {self.frames} frames to nothing: "
                "give fewer filters, or more bands and seconds"
            )
        if self.text.kind == "none":
            raise ValueError("text kind is none, but captions are to be read: give small, labels or t5")
        if self.range_db <= 0:
            raise ValueError(f"range_db is {self.range_db}, wanted above 0")

    @property
    def window(self) -> int:
        """Samples that are heard at once."""
        return round(self.seconds * self.sample_rate)

    @property
    def frames(self) -> int:
        """Spectral frames of them."""
        return 1 + self.window // self.hop


class ContrastiveModel(nn.Module):
    """Windows of sound and captions to unit vectors; the cosine of two says how well they fit.

    Convolutions over a log-mel spectrogram, and one matrix for all that they find: order in time counts, as it does in
    words. That it does not matter when something begins is learned from data, where it begins anywhere.
    """

    def __init__(self, config: ContrastiveConfig) -> None:
        super().__init__()
        self.config = config
        blocks: list[nn.Module] = []
        for before, filters in zip((1, *config.filters), config.filters, strict=False):
            blocks += [nn.Conv2d(before, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
            blocks += [nn.MaxPool2d(2), nn.Dropout2d(config.dropout / 2)]
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(config.dropout)
        left = (size >> len(config.filters) for size in (config.mels, config.frames))
        self.sound_projection = nn.Linear(config.filters[-1] * math.prod(left), config.dim)
        text = config.text
        if text.kind == "small":
            self.text_encoder = SmallTextEncoder(text)
        elif text.kind == "labels":
            self.label_embedding = nn.Embedding(len(text.labels), text.dim)
        self.text_projection = nn.Linear(text.dim, config.dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def hear(self, sounds: Tensor) -> Tensor:
        """Windows [B, L], each of ``config.window`` samples -> unit vectors [B, D]."""
        hidden = self.blocks(self.spectrogram(sounds)[:, None])  # [B, C, M', S']
        return F.normalize(self.sound_projection(self.dropout(hidden.flatten(1))).float(), dim=-1)

    def spectrogram(self, sounds: Tensor) -> Tensor:
        """[B, L] -> [B, M, S] from -1 (silence) to 1 (the loudest band of the window)."""
        own = self.config
        levels = audio.log_mel(sounds.float(), own.sample_rate, own.fft_size, own.hop, own.mels, floor=1e-12)
        below = levels - levels.amax((1, 2), keepdim=True).clamp(min=QUIETEST)
        return (1 + below * (40 / math.log(10) / own.range_db)).clamp(min=-1)

    def read(self, texts: TextInput) -> Tensor:
        """Captions -> unit vectors [B, D]."""
        states, mask = texts
        if self.config.text.kind == "small":
            states = self.text_encoder(states, mask)
        elif self.config.text.kind == "labels":
            states = self.label_embedding(states)
        counted = mask[..., None].to(states.dtype)
        pooled = (states * counted).sum(1) / counted.sum(1).clamp_min(1)
        return F.normalize(self.text_projection(pooled.to(self.text_projection.weight.dtype)).float(), dim=-1)

    def loss(self, sounds: Tensor, texts: Tensor, same: Tensor) -> Tensor:
        """The contrastive loss in nats, mean over both directions.

        Args:
            sounds: unit vectors [B, D].
            texts: those of their captions, [B, D].
            same: [B, B] bool, which captions are the same, or of one kind. Their sounds belong to one another, too, and
                share what is to be guessed (Khosla et al. 2020, arXiv:2004.11362, equation 2).
        """
        logits = self.log_scale.clamp(max=HOTTEST).exp() * sounds @ texts.T
        wanted = same / same.sum(1, keepdim=True)
        return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted)) / 2


class ContrastiveScorer:
    """A trained small CLAP as a scorer of takes and a judge: the cosine of sound and caption, in [-1, 1].

    It is used wherever a ``ClapScorer`` is: by ``generate --candidates 4 --scorer FOLDER``, and in plans of
    ``evaluate`` as a model of kind clap.

    Usage: ``ContrastiveScorer.load("build/streams/scorer")([sound], ["a man says the digit one"])``.
    """

    def __init__(self, model: ContrastiveModel, conditioner: TextConditioner, folder: str | Path = "") -> None:
        self.model, self.conditioner = model.eval().requires_grad_(False), conditioner
        self.folder = Path(folder).resolve() if folder else None
        """Where it was read from: what a model that brings its scorer copies."""
        self.fingerprint = checkpoint.fingerprint(model)

    @property
    def name(self) -> str:
        """Its folder's, for tables."""
        return "contrastive" if self.folder is None else self.folder.name

    @property
    def sample_rate(self) -> int:
        """At which it listens; sounds of any rate are given."""
        return self.model.config.sample_rate

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> ContrastiveScorer:
        """Open a checkpoint folder that a ContrastiveTask exported.

        Raises:
            FileNotFoundError: the folder or a part of it is missing.
            ValueError: it holds something else, is damaged, or its parts do not belong together.
        """
        folder = Path(folder)
        checkpoint.read_kind(folder, KIND)
        model = checkpoint.load(ContrastiveModel, folder / PART)
        conditioner = TextConditioner.load(model.config.text, folder)
        found = checkpoint.bundle_fingerprints({PART: model}, text_files(conditioner), text_folders(conditioner))
        checkpoint.check_bundle(folder, KIND, found)
        return cls(model.to(device), conditioner, folder)

    @classmethod
    def lies_in(cls, folder: str | Path) -> bool:
        """Whether a folder holds one; a name on the hub is no folder."""
        return checkpoint.kind_of(folder) == KIND

    def __call__(self, sounds: Sequence[Sound], texts: Sequence[str]) -> Tensor:
        """The cosine of each sound and its text, [N] float32 on the CPU; a pair's does not depend on the others.

        Raises:
            ValueError: not one text for each sound, an empty text, or a sound that is empty or holds NaN.
        """
        if len(sounds) != len(texts):
            raise ValueError(f"{len(sounds)} sounds for {len(texts)} texts: give one text for each sound")
        wanted = self.embed_texts(texts)
        return (self.embed_sounds(sounds) * wanted).sum(-1)

    @torch.no_grad()
    def embed_sounds(self, sounds: Sequence[Sound]) -> Tensor:
        """The mean of the unit vectors of each sound's windows, [N, D] on the CPU."""
        return torch.stack([self._heard(sound) for sound in sounds]) if sounds else self._nothing()

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of texts, [N, D] on the CPU."""
        if not all(text.strip() for text in texts):
            raise ValueError("a text to score by is empty: give a caption for each sound")
        made = []
        for first in range(0, len(texts), BATCH):
            read = self.conditioner.prepare(list(texts[first : first + BATCH]), self.model.log_scale.device)
            made.append(self.model.read(read).cpu())
        return torch.cat(made) if made else self._nothing()

    def _heard(self, sound: Sound) -> Tensor:
        """[D]."""
        own = self.model.config
        samples = audio.checked(sound.samples, "a sound to score")
        mono = audio.fit(Sound(samples, sound.sample_rate), own.sample_rate, 1).samples[0].float()
        parts = windows(mono, own.window)
        batch = torch.stack([F.pad(part, (0, own.window - len(part))) for part in parts])
        return self.model.hear(batch.to(self.model.log_scale.device)).mean(0).cpu()

    def _nothing(self) -> Tensor:
        return torch.zeros(0, self.model.config.dim)
