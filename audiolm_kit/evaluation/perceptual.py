"""How well a sound fits a text: the contract of a scorer, CLAP of transformers, and the door to its other models.

Shapes: N pairs of a sound and a text, W windows of sounds, D width of the embeddings both are compared in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from audiolm_kit import audio
from audiolm_kit.audio import Sound

BATCH = 16
"""Windows, or texts, that are embedded at once; what comes out does not depend on it."""
TABLES = ("position_ids", "token_type_ids", "relative_position_index", "num_batches_tracked")
"""Entries of a CLAP that are counted out anew when its file does not hold them; anything else must be there."""


class Scorer(Protocol):
    """Whatever judges sounds by texts; also a plain function."""

    def __call__(self, sounds: list[Sound], texts: list[str]) -> Tensor:
        """One score for each pair of a sound and its text, [N]; higher is better."""


class ClapScorer:
    """Contrastive language-audio pretraining (Wu et al. 2023, arXiv:2211.06687): cosine of sound and text, in [-1, 1].

    The same pair has the same score always. transformers' own preparation draws at random: a crop of what is longer
    than the model's window (``rand_trunc``), three crops of it (``fusion``), and one sound of a batch that is fused
    though it is short. Here a longer sound is cut into the fewest windows that cover it, evenly spaced, the last one
    ending with the sound; its score is the mean of theirs, and nothing is fused. A shorter one is filled up as the
    model's preparation says, which is by repeating it.

    Usage: ``ClapScorer("laion/clap-htsat-unfused")([sound], ["a dog barks"])``.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        """Load from a folder or the hub.

        Raises:
            FileNotFoundError: There is no CLAP.
            ValueError: What is there lacks weights.
        """
        import transformers

        library: Any = transformers
        try:
            config = library.AutoConfig.from_pretrained(name)
            if config.model_type != "clap":  # transformers would fill a CLAP with random weights
                raise ValueError(f"it is of type {config.model_type}")
            self._extractor: Any = library.AutoFeatureExtractor.from_pretrained(name)
            self._tokenizer: Any = library.AutoTokenizer.from_pretrained(name)
            if len(self._tokenizer) <= len(set(self._tokenizer.all_special_ids)):  # so it is made where files lack
                raise ValueError("its tokenizer has no words")
            model, report = library.ClapModel.from_pretrained(name, output_loading_info=True)
        except (OSError, ValueError) as error:
            cause = str(error).split("\n", 1)[0]
            raise FileNotFoundError(f"no CLAP at {name!r} ({cause}): give a folder or a name on the hub") from None
        missing = sorted(key for key in report["missing_keys"] if not key.endswith(TABLES))
        if missing:
            raise ValueError(f"the CLAP at {name!r} lacks {len(missing)} weights, as {missing[0]}: fetch it again")
        self._model: Any = model.float().eval().requires_grad_(False).to(device)
        self.name, self.device = name, torch.device(device)

    @property
    def sample_rate(self) -> int:
        """At which the model listens; sounds of any rate are given."""
        return int(self._extractor.sampling_rate)

    @property
    def window(self) -> int:
        """Samples that the model hears at once."""
        return int(self._extractor.nb_max_samples)

    def __call__(self, sounds: list[Sound], texts: list[str]) -> Tensor:
        """The mean cosine of each sound's windows and its text, [N] float32 on the CPU.

        A pair's score does not depend on the others (up to rounding).

        Raises:
            ValueError: Not one text for each sound, an empty text or one that is too long for the model, or a sound
                that is empty or holds NaN.
        """
        if len(sounds) != len(texts):
            raise ValueError(f"{len(sounds)} sounds for {len(texts)} texts: give one text for each sound")
        wanted = self.embed_texts(texts)  # first, because it is quick to refuse
        return (self.embed_sounds(sounds) * wanted).sum(dim=-1)

    def embed_sounds(self, sounds: Sequence[Sound]) -> Tensor:
        """The mean of the unit embeddings of each sound's windows, [N, D]; of length 1 for a sound of one window."""
        owners, waiting, made = [], [], []
        for owner, sound in enumerate(sounds):
            samples = audio.fit(
                Sound(audio.checked(sound.samples, "a sound to score"), sound.sample_rate), self.sample_rate, 1
            ).samples[0]
            for window in windows(samples.detach().cpu().float(), self.window):
                owners.append(owner)
                waiting.append(window)
                if len(waiting) == BATCH:
                    made.append(self._embed_windows(waiting))
                    waiting = []
        if waiting:
            made.append(self._embed_windows(waiting))
        embeddings = torch.cat(made) if made else torch.zeros(0, self._model.config.projection_dim)
        places = torch.tensor(owners, dtype=torch.long)
        sums = torch.zeros(len(sounds), embeddings.shape[1]).index_add_(0, places, embeddings)
        return sums / torch.bincount(places, minlength=len(sounds))[:, None]

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings of texts, [N, D]."""
        for text in texts:
            if not text.strip():
                raise ValueError("a text to score by is empty: give a caption for each sound")
        made = [self._embed_captions(list(texts[first : first + BATCH])) for first in range(0, len(texts), BATCH)]
        return torch.cat(made) if made else torch.zeros(0, self._model.config.projection_dim)

    # --- inside -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _embed_windows(self, waiting: list[Tensor]) -> Tensor:
        """Windows of one sound each, none longer than the model's, to [W, D]."""
        state = np.random.get_state()  # the preparation draws from it, though nothing that is used
        try:
            raw = [window.numpy() for window in waiting]
            inputs = self._extractor(raw, sampling_rate=self.sample_rate, return_tensors="pt")
        finally:
            np.random.set_state(state)
        features = inputs["input_features"].float().to(self.device)
        longer = torch.zeros(len(waiting), 1, dtype=torch.bool, device=self.device)
        with torch.autocast(self.device.type, enabled=False):
            return unit(self._model.get_audio_features(input_features=features, is_longer=longer))

    @torch.no_grad()
    def _embed_captions(self, texts: list[str]) -> Tensor:
        """A batch of captions to [N, D]; padding is masked."""
        inputs = self._tokenizer(texts, return_tensors="pt", padding=True)
        config = self._model.config.text_config
        most = config.max_position_embeddings - config.pad_token_id - 1  # as RoBERTa counts positions
        lengths = inputs["attention_mask"].sum(dim=1)
        if int(lengths.max()) > most:
            text = texts[int(lengths.argmax())]
            raise ValueError(
                f"the text {text[:40]!r}... has {int(lengths.max())} pieces, CLAP reads {most}: shorten it"
            )
        inputs = inputs.to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            found = self._model.get_text_features(inputs["input_ids"], attention_mask=inputs["attention_mask"])
        return unit(found)


def windows(samples: Tensor, length: int) -> list[Tensor]:
    """The fewest windows that cover ``[L]``, evenly spaced, the last ending with it; a shorter sound is one."""
    beyond = samples.shape[0] - length
    if beyond <= 0:
        return [samples]
    steps = -(-beyond // length)
    return [samples[first : first + length] for first in (beyond * step // steps for step in range(steps + 1))]


def unit(found: Any) -> Tensor:
    """What a version of transformers returns for features, as unit embeddings [W, D] on the CPU."""
    features: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return torch.nn.functional.normalize(features.float(), dim=-1).cpu()


def opened(name: str, part: str, kinds: Sequence[str], what: str) -> tuple[Any, Any]:
    """A model of transformers that listens, in single precision and evaluation mode, and its preparation of sounds.

    Args:
        name: A folder, or a name on the hub.
        part: The class of transformers that reads it.
        kinds: The model types that will do.
        what: It is to be, for errors.

    Raises:
        FileNotFoundError: There is no such model.
        ValueError: What is there lacks weights, which transformers would make up.
    """
    import transformers

    library: Any = transformers
    try:
        config = library.AutoConfig.from_pretrained(name)
        if config.model_type not in kinds:
            raise ValueError(f"it is of type {config.model_type}, wanted {' or '.join(kinds)}")
        preparation = library.AutoFeatureExtractor.from_pretrained(name)
        model, report = getattr(library, part).from_pretrained(name, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        cause = str(error).split("\n", 1)[0]
        raise FileNotFoundError(f"no {what} at {name!r} ({cause}): give a folder or a name on the hub") from None
    missing = sorted(key for key in report["missing_keys"] if not key.endswith((*TABLES, "masked_spec_embed")))
    if missing:
        raise ValueError(f"the {what} at {name!r} lacks {len(missing)} weights, as {missing[0]}: fetch it again")
    return model.float().eval().requires_grad_(False), preparation


def speech_recogniser(name: str, device: str) -> Any:
    """The pipeline of transformers that writes down what is said.

    Raises:
        FileNotFoundError: There is no such model.
    """
    import transformers

    library: Any = transformers
    try:
        return library.pipeline("automatic-speech-recognition", model=name, device=device)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        cause = str(error).split("\n", 1)[0]
        told = f"no recogniser of speech at {name!r} ({cause})"
        raise FileNotFoundError(f"{told}: give a folder or a name on the hub") from None
