"""A T5 encoder of transformers that reads captions and learns nothing: its states, and what it is told apart by.

Shapes: B batch, N tokens, E width of the states.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from audiolm_kit.text import TextInput
from audiolm_kit.text_cache import CachedStates, Source

T5_FIELDS = (
    "d_model d_kv d_ff num_layers num_heads relative_attention_num_buckets relative_attention_max_distance "
    "feed_forward_proj layer_norm_epsilon vocab_size"
).split()
"""All of a T5's config that decides what its encoder computes."""
TOKENS = 8192
"""Read at once when states are computed for a cache, in at most 64 captions."""


class FrozenT5:
    """A T5 encoder that is only read: no module of ours holds its weights, no checkpoint of ours saves them."""

    def __init__(self, name: str, dim: int) -> None:
        """Load from a folder or the hub; ``dim`` is what its states must be wide."""
        from transformers import AutoTokenizer, T5EncoderModel

        try:
            with quiet(name):
                self.tokenizer: Any = AutoTokenizer.from_pretrained(name)
                loaded: Any = T5EncoderModel.from_pretrained(name, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, EOFError, SafetensorError) as error:
            raise FileNotFoundError(_no_t5(name, error)) from None
        model, about = loaded
        lacking = sorted(about["missing_keys"])
        if lacking:  # transformers would make them up
            raise ValueError(f"{name} lacks {len(lacking)} weights of a T5 encoder, {lacking[0]} among them: give a T5")
        _check_width(name, model.config.d_model, dim)
        if len(self.tokenizer) > model.config.vocab_size:
            raise ValueError(
                f"the tokenizer of {name} has {len(self.tokenizer)} pieces, its T5 takes {model.config.vocab_size}: "
                "give a folder whose parts belong together"
            )
        self.name = name
        self.model: Any = model.float().eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenT5:
        """A copy of what holds it shares it: nothing ever changes it, and it may be large."""
        return self

    @torch.no_grad()
    def __call__(self, texts: list[str], device: torch.device | str = "cpu") -> TextInput:
        """Captions -> states ``[B, N, E]``, in float32 (T5 overflows float16) whatever runs around it."""
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True).to(device)
        mask = inputs["attention_mask"].bool()
        states = self._states(inputs["input_ids"], inputs["attention_mask"])
        said = torch.tensor([bool(text.strip()) for text in texts], device=mask.device)
        return TextInput(states, mask & said[:, None])

    @torch.no_grad()
    def each(self, texts: Iterable[str], device: torch.device | str = "cpu") -> Iterator[tuple[str, Tensor]]:
        """Captions with their states ``[N, E]``, the shortest first, on the CPU.

        Only captions of equally many tokens are read together: there is no padding that a result could depend on.
        """
        texts = list(texts)
        pieces = dict(zip(texts, self.tokenizer(texts)["input_ids"], strict=True))
        by_length = sorted(pieces, key=lambda text: len(pieces[text]))
        for length, group in groupby(by_length, lambda text: len(pieces[text])):
            while batch := list(islice(group, max(1, min(64, TOKENS // max(1, length))))):
                codes = torch.tensor([pieces[text] for text in batch], dtype=torch.long, device=device)
                yield from zip(batch, self._states(codes, torch.ones_like(codes)).cpu(), strict=True)

    def fingerprint(self) -> str:
        """16 hex digits that change with any weight, with what the config makes of them, and with the tokenizer.

        Every weight is hashed in full, for only that is sure, but on threads: about a second for each GB, less than
        loading took. They are hashed as they compute, so one model is one whether it lies in safetensors or in a
        pickle, whole or sharded.
        """
        config = {name: getattr(self.model.config, name) for name in T5_FIELDS}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode() + _tokenizer_state(self.tokenizer))
        weights = {name: tensor.cpu() for name, tensor in self.model.named_parameters()}  # shared ones come once
        with ThreadPoolExecutor() as pool:  # hashing runs outside the interpreter's lock
            for name, hashed in zip(weights, pool.map(_hashed, weights.values()), strict=True):
                digest.update(name.encode() + hashed)
        return digest.hexdigest()[:16]

    def _states(self, pieces: Tensor, mask: Tensor) -> Tensor:
        """Pieces and mask ``[B, N] -> [B, N, E]``."""
        with torch.autocast(pieces.device.type, enabled=False):
            states: Tensor = self.model.to(pieces.device)(input_ids=pieces, attention_mask=mask).last_hidden_state
        return states


def cached_t5(name: str, dim: int, cache: str | Path) -> CachedStates:
    """A frozen T5 behind its states on disk, in a folder that may hold those of others too."""
    versions = [version(package) for package in ("transformers", "tokenizers")]
    source = Source(name, _local(name), " ".join(versions))
    return CachedStates(Path(cache), dim, source, partial(FrozenT5, dim=dim))


def _local(name: str) -> Path | None:
    """The folder of a T5 by its path, or where the hub's client keeps it; None where it was not fetched yet."""
    if Path(name).is_dir():
        return Path(name).resolve()
    from transformers.utils import hub

    try:
        found = hub.cached_file(name, "config.json", local_files_only=True)
    except (OSError, ValueError):
        return None
    return Path(found).parent if found else None


def _check_width(name: str, found: int, dim: int) -> None:
    if found != dim:
        raise ValueError(f"text dim is {dim}, but {name} is {found} wide: set text dim to that")


def _no_t5(name: str, error: Exception) -> str:
    """What to say of a T5 that does not load."""
    if "tiktoken" in str(error) or "protobuf" in str(error):  # which of them, depends on the version
        return f"the tokenizer of {name} is a spiece.model, read with protobuf: pip install audiolm_kit[text]"
    cause = str(error).split("\n", 1)[0]
    return f"no T5 at {name!r} ({cause}): give a folder or a name on the hub"


@contextlib.contextmanager
def quiet(name: str | Path) -> Iterator[None]:
    """Without what transformers says of weights it does not use (a decoder's), and its bars unless it may download.

    Args:
        name: What is opened; of a folder on this disk nothing is downloaded.
    """
    import transformers

    logging: Any = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if Path(name).is_dir():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _hashed(tensor: Tensor) -> bytes:
    shape = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    digest = hashlib.sha256(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return shape + digest.digest()


def _tokenizer_state(tokenizer: Any) -> bytes:
    """All that decides how a tokenizer cuts a text, and nothing of how its last call padded."""
    rest: dict[str, Any] = {
        "kind": type(tokenizer).__name__,
        "special": str(sorted(tokenizer.special_tokens_map.items())),
    }
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        rest = {name: rule for name, rule in rules.items() if name not in ("padding", "truncation")}
    else:  # of plain Python, as ByT5's: it has no rules beside its pieces
        rest["pieces"] = sorted(tokenizer.get_vocab().items())
    return json.dumps(rest, sort_keys=True).encode()
