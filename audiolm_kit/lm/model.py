"""StreamLM: K streams of codes, a context to attend to, a prefix to stand on.

Shapes: B batch, K codebooks, T frames, S steps, V codebook size, D width; the prefix has its own K and T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from audiolm_kit.conditioning import Context, SmallTextEncoder, TextConfig, TextInput
from audiolm_kit.kv_cache import KVCache
from audiolm_kit.lm.losses import Cells, Told, cells_of, counted_of, entropies, state_loss, told
from audiolm_kit.lm.pattern import Pattern, PatternName
from audiolm_kit.positions import sinusoids
from audiolm_kit.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class Prefix:
    """Codes of an earlier stage that stand in front, one a step (AudioLM, arXiv:2209.03143, section III-C)."""

    num_codebooks: int = 0
    """0: no prefix."""
    codebook_size: int = 1024
    frames_per_code: float = 0.0
    """How many of the model's own frames a frame of the prefix lasts (in the mean, where repeats are left out). Then
    both count their time from their own first frame and are given its sinusoid, as phonemes and codes in VALL-E
    (arXiv:2301.02111, section 4.2.1): what belongs together has one time, however long the prefix is. 0: neither has a
    time, and the model has to find out by itself what stands for what."""
    beside: bool = False
    """Each step is also given the codes of its own time beside what it is made of, as SoundStorm gives a frame its
    semantic code (arXiv:2305.09636, section 3.2): nothing has to be looked for. Needs frames_per_code, exactly."""
    in_front: bool = True
    """False: codes stand beside the steps alone, which are fewer then: half as many, if a frame has one of either."""
    ahead: int = 0
    """Beside it a step is also given the codes of so many of the model's frames later: what is to be said next."""

    def __post_init__(self) -> None:
        if self.num_codebooks < 0 or self.codebook_size < 1:
            raise ValueError(f"prefix is {self.num_codebooks} codebooks of {self.codebook_size}: give positive numbers")
        if not (math.isfinite(self.frames_per_code) and self.frames_per_code >= 0):
            raise ValueError(f"frames_per_code of the prefix is {self.frames_per_code}: give 0 or more")
        if self.beside and not (self.num_codebooks and self.frames_per_code):
            raise ValueError("beside is true, but the prefix has no codes or no times: give frames_per_code")
        if not self.beside and not (self.in_front and self.ahead == 0):
            raise ValueError(
                "in_front false and ahead are about codes beside the steps: set beside of the prefix to true"
            )
        if self.ahead < 0:
            raise ValueError(f"ahead of the prefix is {self.ahead}: give 0 or more frames")


@dataclass(frozen=True)
class LMConfig:
    """A token language model: AudioGen's, MusicGen's, or one stage of AudioLM."""

    num_codebooks: int = 4
    codebook_size: int = 1024
    pattern: PatternName = "delay"
    """How the codebooks are laid out in time."""
    transformer: TransformerConfig = TransformerConfig()
    text: TextConfig = TextConfig()
    """How captions are read; needs transformer.cross_attention."""
    prefix: Prefix = Prefix()
    offsets: tuple[int, ...] = ()
    """With pattern delay: how many steps each codebook is late (0, 0, 1, 1, ... for stereo); empty: 0, 1, 2, ..."""

    def __post_init__(self) -> None:
        if self.num_codebooks < 1 or self.codebook_size < 1:
            raise ValueError(f"model of {self.num_codebooks} codebooks of {self.codebook_size}: give positive numbers")
        object.__setattr__(self, "offsets", tuple(self.offsets))
        Pattern.named(self.pattern, self.num_codebooks, self.offsets)
        if not self.transformer.causal:
            raise ValueError("a language model must not see the future: set transformer causal to true")
        if self.text.kind != "none" and not self.transformer.cross_attention:
            raise ValueError(f"text kind is {self.text.kind!r}: set transformer cross_attention to true")
        if self.prefix.frames_per_code and (self.transformer.dim % 2 or self.transformer.dim < 4):
            raise ValueError(
                f"times of a prefix need an even transformer dim of at least 4, got {self.transformer.dim}"
            )


class StreamLM(nn.Module):
    """The model and all its trained weights, those that read captions among them.

    The model reads a *sequence*: step 0 is all special codes (V), step s + 1 holds step s of the pattern. From step s
    it predicts step s + 1 (MusicGen, arXiv:2306.05284, section 2.2).
    """

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.config = config
        self.pattern = Pattern.named(config.pattern, config.num_codebooks, config.offsets)
        dim = config.transformer.dim
        self.embedding = nn.Embedding(config.num_codebooks * (config.codebook_size + 1), dim)
        self.transformer = Transformer(config.transformer)
        self.heads = nn.Linear(dim, config.num_codebooks * config.codebook_size, bias=False)
        rows = config.prefix.num_codebooks * config.prefix.codebook_size
        if rows and config.prefix.in_front:
            self.prefix_embedding = nn.Embedding(rows, dim)
        if config.prefix.beside:
            self.beside_embedding = nn.Embedding(rows, dim)
        if config.prefix.ahead:
            self.ahead_embedding = nn.Embedding(rows, dim)
        if config.text.kind == "small":
            self.text_encoder = SmallTextEncoder(config.text)
        if config.text.kind == "labels":
            self.label_embedding = nn.Embedding(len(config.text.labels), config.text.dim)
        if config.text.kind != "none":
            self.text_projection = nn.Linear(config.text.dim, dim)
        self._initialise()

    @property
    def dtype(self) -> torch.dtype:
        """Of what the layers compute with and of caches; the weights of some layers may be packed and tell nothing."""
        return self.embedding.weight.dtype

    @property
    def special(self) -> int:
        """The code that stands where no code does: V."""
        return self.config.codebook_size

    def forward(self, codes: Tensor, context: Context | None = None, prefix: Tensor | None = None) -> Tensor:
        """Teacher forcing: codes ``[B, K, T] -> `` logits ``[B, K, T, V]``, each given all codes that come before it.

        Args:
            codes: From 0 to V - 1; V (``special``) at padding behind a short row makes its last frames stand as they
                do in generation.
            context: Of ``condition``; None is the null context.
            prefix: Codes ``[B, K, T]`` of the earlier stage, if the model has one; T may be 0. Rows shorter than T are
                padded in front with the code that is none of theirs, its codebook_size: see ``lead``.
        """
        num_frames = codes.shape[-1]
        states = self._read_codes(codes, context, prefix)
        # The states of each code, and then the heads: with flatten only one stream of a step is ever asked for.
        streams = states[:, None].expand(-1, self.config.num_codebooks, -1, -1)
        states = self.pattern.revert(streams, num_frames)
        weight = rearrange(self.heads.weight, "(k v) d -> k v d", k=self.config.num_codebooks)
        return torch.einsum("b k t d, k v d -> b k t v", states, weight)

    def step_logits(
        self,
        sequence: Tensor,
        context: Context | None = None,
        prefix: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Sequence ``[B, K, S] -> [B, K, S, V]``, logits of the step after each; see ``read``."""
        return self.predict(self.read(sequence, context, prefix, cache))

    def read(
        self,
        sequence: Tensor,
        context: Context | None = None,
        prefix: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Sequence ``[B, K, S] -> `` states ``[B, S, D]``.

        With a cache (``new_cache``) these are the next S steps, and context and prefix are read in the first call only.
        """
        size = self.config.codebook_size + 1
        offsets = torch.arange(0, self.config.num_codebooks * size, size, device=sequence.device)
        x, num_steps = self.embedding(sequence + offsets[:, None]).sum(dim=1), sequence.shape[-1]
        first = cache is None or cache.length == 0
        lead = self.lead(prefix) if first else None
        begun = 0 if cache is None else max(0, cache.length - cache.front)
        if self.config.prefix.frames_per_code:
            steps = torch.arange(begun, begun + num_steps, device=x.device)
            x = x + self._timed(steps / self.pattern.stride).to(x.dtype)
        if self.config.prefix.beside:
            x = x + self._beside(prefix, cache, begun, num_steps)
        if first and self.config.prefix.in_front:
            x = torch.cat([*self._embed_prefix(prefix, lead), x], dim=1)
        states: Tensor = self.transformer(x, context, cache, lead=lead)
        return states[:, -num_steps:]

    def predict(self, states: Tensor) -> Tensor:
        """States ``[B, S, D] -> `` logits ``[B, K, S, V]``."""
        logits: Tensor = rearrange(self.heads(states), "b s (k v) -> b k s v", k=self.config.num_codebooks)
        return logits

    def loss(
        self,
        codes: Tensor,
        mask: Tensor,
        context: Context | None = None,
        prefix: Tensor | None = None,
        read: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy of codes ``[B, K, T]`` in nats: the mean of the codebooks' means, a scalar.

        It is ``losses.loss`` of the logits of ``forward``, which are never made as a whole; arguments as in
        ``log_likelihood``.

        Args:
            read: What is read in the place of the codes, as many; each code is told from these before it.
        """
        return state_loss(*self._learned(codes, mask, context, prefix, read))

    def told(self, codes: Tensor, mask: Tensor, context: Context | None = None, prefix: Tensor | None = None) -> Told:
        """The same for each codebook, and how many codes are the likeliest ones; nothing is learned from it."""
        return told(*self._learned(codes, mask, context, prefix))

    def log_likelihood(
        self, codes: Tensor, mask: Tensor, context: Context | None = None, prefix: Tensor | None = None
    ) -> Tensor:
        """How likely codes ``[B, K, T]`` are in nats, ``[B]``: the sum of the logarithms over frames and codebooks.

        Args:
            codes: From 0 to V - 1; anything where masked.
            mask: ``[B, T]``, True at frames that count; elsewhere is the special code, and nothing else is seen.
            context: As in ``forward``.
            prefix: As in ``forward``; it is given and not counted.
        """
        counted = mask[:, None].expand(codes.shape).bool()
        logits = self(codes.masked_fill(~counted, self.special), context, prefix)
        return -entropies(logits, codes, counted).sum(dim=(1, 2))

    def lead(self, prefix: Tensor | None) -> Tensor | None:
        """How many steps of padding stand in front of each row, ``[B]``; refuses a prefix that does not fit the model.

        None where no codes stand in front of steps. A row of ``[B, K, T]`` that is shorter than T is padded in front,
        in all codebooks, with the prefix's codebook_size. It may be padding alone.
        """
        config = self.config.prefix
        if prefix is None and not config.num_codebooks:
            return None
        frames = self._padded(prefix)
        return frames * config.num_codebooks if config.in_front else None

    def without_prefix(self, prefix: Tensor) -> Tensor:
        """As many rows ``[B, K, T]`` of padding alone: what a model reads that stands on nothing."""
        return torch.full_like(prefix, self.config.prefix.codebook_size)

    def _padded(self, prefix: Tensor | None) -> Tensor:
        """How many frames of padding each row of a prefix begins with, ``[B]``."""
        config = self.config.prefix
        if prefix is None or prefix.shape[1] != config.num_codebooks:
            given = "none" if prefix is None else f"one of {prefix.shape[1]} codebooks"
            raise ValueError(f"the model stands on a prefix of {config.num_codebooks} codebooks, got {given}")
        padded = prefix == config.codebook_size
        frames = padded[:, 0].sum(dim=-1)
        in_front = torch.arange(prefix.shape[-1], device=prefix.device) < frames[:, None]
        if bool((padded != in_front[:, None]).any()):
            found = f"the code {config.codebook_size} stands in the prefix behind a code, or in some codebooks alone"
            raise ValueError(f"{found}: it is padding, put it in front of a row and in all codebooks")
        return frames

    def new_cache(self, batch: int, num_frames: int, prefix: Tensor | None = None) -> KVCache:
        """Return an empty cache for ``batch`` rows of a prefix and ``num_frames`` frames."""
        in_front = 0 if prefix is None or not self.config.prefix.in_front else prefix.shape[1] * prefix.shape[2]
        cache = self.transformer.new_cache(batch, in_front + 1 + self.pattern.num_steps(num_frames))
        cache.front = in_front
        if self.config.prefix.beside:
            shape = (batch, cache.max_steps - in_front, self.config.transformer.dim)
            cache.beside = self.beside_embedding.weight.new_empty(shape)
        return cache

    def condition(self, text: TextInput) -> Context:
        """Captions of a ``TextConditioner`` -> the context to attend to; an empty caption is the null context."""
        if self.config.text.kind == "none":
            raise ValueError("this model was made without captions (text kind none): leave the text out")
        states = text.content
        if self.config.text.kind == "small":
            states = self.text_encoder(states, text.mask)
        if self.config.text.kind == "labels":
            states = self.label_embedding(states)
        states = self.text_projection(states.to(self.text_projection.weight.dtype))
        return Context(states * text.mask[..., None], text.mask)

    def _read_codes(self, codes: Tensor, context: Context | None, prefix: Tensor | None) -> Tensor:
        """Teacher forcing: codes ``[B, K, T] -> `` states ``[B, S, D]``, each of the steps before its own."""
        sequence = F.pad(self.pattern.apply(codes, self.special), (1, -1), value=self.special)
        return self.read(sequence, context, prefix)

    def _learned(
        self,
        codes: Tensor,
        mask: Tensor,
        context: Context | None,
        prefix: Tensor | None,
        read: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, list[Cells]]:
        """What ``losses`` asks for: states ``[B * S, D]``, heads ``[K, V, D]``, and which states tell which codes."""
        counted = counted_of(codes, mask)
        seen = codes if read is None else read
        states = self._read_codes(seen.masked_fill(~counted, self.special), context, prefix)
        heads = rearrange(self.heads.weight, "(k v) d -> k v d", k=self.config.num_codebooks)
        return states.flatten(0, 1), heads, cells_of(self.pattern, states.shape[1], codes, counted)

    def _embed_prefix(self, prefix: Tensor | None, lead: Tensor | None) -> list[Tensor]:
        """``[B, K, T] -> [[B, K * T, D]]``, frame by frame; nothing for a model without prefix."""
        if prefix is None or lead is None:
            return []
        config = self.config.prefix
        codes = prefix.masked_fill(prefix == config.codebook_size, 0)  # padding is not seen: any code will do
        offsets = torch.arange(config.num_codebooks, device=prefix.device) * config.codebook_size
        x: Tensor = self.prefix_embedding(rearrange(codes + offsets[:, None], "b k t -> b (t k)"))
        if config.frames_per_code:
            steps = (torch.arange(x.shape[1], device=x.device) - lead[:, None]).clamp(min=0)
            x = x + self._timed(steps / config.num_codebooks * config.frames_per_code).to(x.dtype)
        return [x]

    def _beside(self, prefix: Tensor | None, cache: KVCache | None, begun: int, num_steps: int) -> Tensor:
        """What steps are given of the prefix's codes of their own time, ``[B, S, D]``; zeros behind its end.

        A cache keeps it for all steps that it has room for.
        """
        beside = None if cache is None else cache.beside
        if beside is not None and begun:
            return beside[:, begun : begun + num_steps]
        assert prefix is not None  # the first call, as ``lead`` has checked
        count = num_steps if beside is None else beside.shape[1]
        times = torch.arange(count, device=prefix.device) // self.pattern.stride
        found = self._codes_at(times, prefix, self.beside_embedding)
        if self.config.prefix.ahead:
            found = found + self._codes_at(times + self.config.prefix.ahead, prefix, self.ahead_embedding)
        if beside is not None:
            beside.copy_(found)
        return found[:, :num_steps]

    def _codes_at(self, times: Tensor, prefix: Tensor, embedding: nn.Embedding) -> Tensor:
        """The prefix's codes at times ``[S]``, in frames of the model -> ``[B, S, D]``; zeros behind its end."""
        config = self.config.prefix
        # 1e-6: what is a whole number of codes must not be one less by rounding.
        places = (times / config.frames_per_code + 1e-6).long() + self._padded(prefix)[:, None]
        known = places < prefix.shape[-1]
        places = places.clamp(max=prefix.shape[-1])[:, None].expand(-1, prefix.shape[1], -1)
        offsets = torch.arange(config.num_codebooks, device=prefix.device) * config.codebook_size
        states: Tensor = embedding(F.pad(prefix, (0, 1)).gather(2, places) + offsets[:, None])
        return states.sum(dim=1) * known[..., None]

    def _timed(self, frames: Tensor) -> Tensor:
        """What steps at these times, in frames of the model, are told of them: ``[..., S] -> [..., S, D]``.

        The step before a frame's first code has its time: from there it is predicted.
        """
        return sinusoids(frames, self.config.transformer.dim)

    @torch.no_grad()
    def begin(self, learned: Tensor | None, front: Tensor | None = None) -> None:
        """Before training, give codes that stand for nearly the same sound nearly the same weights.

        Embeddings and heads become projections of what codes stand for, each codebook's own and drawn at random, as
        large as they were. Models of little data else have to learn from it which codes are alike.

        Args:
            learned: what the codes stand for that it makes, ``[K, V, E]``: entries of codebooks; None leaves theirs.
            front: the same of those that stand in front, ``[K', V', E']``.
        """
        if learned is not None:
            _project(
                learned, rearrange(self.embedding.weight, "(k v) d -> k v d", k=len(learned))[:, :-1]
            )  # but "none"
            _project(learned, rearrange(self.heads.weight, "(k v) d -> k v d", k=len(learned)))
        for name in ("prefix_embedding", "beside_embedding", "ahead_embedding"):
            if front is not None and hasattr(self, name):
                _project(front, rearrange(getattr(self, name).weight, "(k v) d -> k v d", k=len(front)))

    def _initialise(self) -> None:
        """Heads as the transformer's layers; a step's summed embeddings as large as its position (rms 0.71).

        Embeddings of the layers' deviation drown in the positions, and small models then learn late.
        """
        nn.init.normal_(self.heads.weight, std=math.sqrt(2 / (5 * self.config.transformer.dim)))
        nn.init.normal_(self.embedding.weight, std=math.sqrt(1 / (2 * self.config.num_codebooks)))
        if self.config.prefix.num_codebooks and self.config.prefix.in_front:
            nn.init.normal_(self.prefix_embedding.weight, std=math.sqrt(1 / 2))
        for name in ("beside_embedding", "ahead_embedding"):
            if hasattr(self, name):
                std = math.sqrt(1 / (2 * self.config.prefix.num_codebooks))
                nn.init.normal_(getattr(self, name).weight, std=std)


def _project(entries: Tensor, weights: Tensor) -> None:
    """Fill weights [K, V, D] with random projections of entries [K, V, E], of the deviation that they had."""
    centred = entries.to(weights) - entries.to(weights).mean(1, keepdim=True)
    made = centred @ torch.randn(len(entries), entries.shape[2], weights.shape[2], device=weights.device).to(weights)
    deviation = made.flatten(1).std(1).clamp_min(1e-12)
    weights.copy_(made * (weights.flatten(1).std(1) / deviation)[:, None, None])
