"""What a language model has to learn, the cross-entropy of codes: from logits, or from states, a few logits at a time.

Shapes: B batch, K codebooks, T frames, S steps, V codebook size, D width, R rows of states (B * S), N cells: codes of
one codebook that are learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from audiolm_kit.lm.pattern import Pattern

LOGITS = {"cpu": 2**20}
"""How many logits are looked at together, by kind of device: few enough for the cache of a core."""
MANY_LOGITS = 2**25
"""On every other device: enough to keep it busy, and 128 MiB in float32."""
FEWEST_ROWS = 64
"""However large a codebook is: matrices of fewer rows are slow."""


# --- from logits ------------------------------------------------------------------------------------------------------


def codebook_losses(logits: Tensor, codes: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of each codebook in nats, mean over the frames of its mask: ``[K]``.

    Args:
        logits: ``[B, K, T, V]``.
        codes: ``[B, K, T]``, from 0 to V - 1; anything where masked.
        mask: ``[B, T]`` or ``[B, K, T]``, True at frames that count.
    """
    counted = counted_of(codes, mask)
    weights = counted.float()
    return entropies(logits, codes, counted).sum(dim=(0, 2)) / weights.sum(dim=(0, 2)).clamp(min=1)


def entropies(logits: Tensor, codes: Tensor, counted: Tensor) -> Tensor:
    """Cross-entropy of each code in nats, ``[B, K, T]`` float32; 0 where ``counted``, ``[B, K, T]`` bool, is not."""
    targets = codes.masked_fill(~counted, 0).flatten()
    entropy = F.cross_entropy(logits.flatten(0, 2).float(), targets, reduction="none").view(codes.shape)
    return entropy * counted


def loss(logits: Tensor, codes: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``codebook_losses`` over codebooks: a scalar."""
    return codebook_losses(logits, codes, mask).mean()


def counted_of(codes: Tensor, mask: Tensor) -> Tensor:
    """Which codes count, ``[B, K, T]`` bool, by a mask ``[B, T]`` or ``[B, K, T]``."""
    return (mask if mask.dim() == 3 else mask[:, None]).expand(codes.shape).bool()


# --- from states ------------------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """How well codes were told."""

    losses: Tensor  # [K], as ``codebook_losses``
    right: Tensor  # [K], how many of the codes that count are the likeliest


class Cells(NamedTuple):
    """The codes of one codebook, and where the states stand that tell them."""

    rows: Tensor  # [N], of R
    codes: Tensor  # [N]
    weights: Tensor | None  # [N], 1 or 0; None: all of them count


def state_loss(states: Tensor, heads: Tensor, cells: Sequence[Cells]) -> Tensor:
    """The ``loss`` of what ``heads`` make of states, with its gradient, and never more than a few logits at once.

    Value and gradient are those of the plain way. The gradients are made on the way forth, while the logits of some
    cells are at hand: the way back only scales them. So the way back must not itself be differentiated.

    Args:
        states: ``[R, D]``.
        heads: ``[K, V, D]``.
        cells: Of ``cells_of``, for each codebook.
    """
    if not (torch.is_grad_enabled() and (states.requires_grad or heads.requires_grad)):
        return _Walk(states, heads, cells).told().losses.mean()
    value: Tensor = _StateLoss.apply(states, heads, cells)  # type: ignore[no-untyped-call]
    return value


@torch.no_grad()
def told(states: Tensor, heads: Tensor, cells: Sequence[Cells]) -> Told:
    """Losses of each codebook and how many codes were told right, without a gradient; arguments as ``state_loss``."""
    return _Walk(states, heads, cells).told(count_right=True)


def cells_of(pattern: Pattern, num_steps: int, codes: Tensor, mask: Tensor) -> list[Cells]:
    """The cells of each codebook of ``[B, K, T]`` whose states are ``[B, S, D]``; ``mask`` as in ``codebook_losses``.

    On a CPU masked cells are left out. Elsewhere they stay, with no weight: to know how many there are the CPU would
    have to wait for the device, which costs more than their logits do.
    """
    counted = counted_of(codes, mask)
    batch, num_codebooks, num_frames = codes.shape
    first = torch.arange(batch, device=codes.device)[:, None] * num_steps
    found = []
    for codebook in range(num_codebooks):
        steps = torch.arange(num_frames, device=codes.device) * pattern.stride + pattern.offsets[codebook]
        rows, own = (first + steps).flatten(), counted[:, codebook].flatten()
        targets = codes[:, codebook].flatten()
        if codes.device.type == "cpu":
            found.append(Cells(rows[own], targets[own], None))
        else:
            found.append(Cells(rows, targets.masked_fill(~own, 0), own.float()))
    return found


class _StateLoss(torch.autograd.Function):
    """``state_loss`` as autograd sees it."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, heads: Tensor, cells: Sequence[Cells]) -> Tensor:
        walk = _Walk(states, heads, cells, *ctx.needs_input_grad[:2])
        value = walk.told().losses.mean()
        ctx.save_for_backward(*walk.gradients())
        return value

    @staticmethod
    @once_differentiable  # type: ignore[misc]
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        of_states, of_heads = (None if each is None else each * scale.to(each.dtype) for each in ctx.saved_tensors)
        return of_states, of_heads, None


class _Walk:
    """One walk over the cells of all codebooks, some at a time; sums up what is asked for."""

    def __init__(
        self, states: Tensor, heads: Tensor, cells: Sequence[Cells], of_states: bool = False, of_heads: bool = False
    ) -> None:
        device = states.device.type
        autocast = torch.is_autocast_enabled(device)
        self.dtype = torch.get_autocast_dtype(device) if autocast else states.dtype
        self.exact = torch.promote_types(states.dtype, torch.float32)
        self.states, self.heads, self.cells = states, heads, cells
        self.at_once = max(FEWEST_ROWS, LOGITS.get(device, MANY_LOGITS) // heads.shape[1])
        self.of_states = torch.zeros_like(states, dtype=self.exact) if of_states else None
        self.of_heads = torch.zeros_like(heads, dtype=self.exact) if of_heads else None

    def gradients(self) -> tuple[Tensor | None, Tensor | None]:
        """Of the mean of all losses by states and by heads, after ``told``."""
        made = ((self.of_states, self.states), (self.of_heads, self.heads))
        of_states, of_heads = (None if each is None else each.to(like.dtype) for each, like in made)
        return of_states, of_heads

    def told(self, count_right: bool = False) -> Told:
        """Walk; autocast would change types under our feet, and is obeyed by hand."""
        with torch.autocast(self.states.device.type, enabled=False):
            both = [self._codebook(number, count_right) for number in range(len(self.cells))]
        return Told(torch.stack([each for each, _ in both]), torch.stack([right for _, right in both]))

    def _codebook(self, number: int, count_right: bool) -> tuple[Tensor, Tensor]:
        """Mean loss of a codebook, and how many of its codes were told right."""
        cells, head = self.cells[number], self.heads[number].to(self.dtype)
        total = self.states.new_zeros((), dtype=self.exact)
        right = torch.zeros((), dtype=torch.long, device=self.states.device)
        count = total + len(cells.rows) if cells.weights is None else cells.weights.sum().to(self.exact)
        count = count.clamp(min=1)
        share = 1 / (count * len(self.cells))
        for some in self._some(cells):
            x = self.states.index_select(0, some.rows).to(self.dtype)
            logits = (x @ head.T).to(self.exact)
            if count_right:
                hits = logits.argmax(dim=-1) == some.codes
                right += (hits if some.weights is None else hits & some.weights.bool()).sum()
            logs = logits.log_softmax(dim=-1)
            own = logs.gather(1, some.codes[:, None])[:, 0]
            total -= (own if some.weights is None else own * some.weights).sum()
            self._learn(number, some, x, head, logs, share)
        if self.of_heads is not None:
            self.of_heads[number] *= share
        return total / count, right

    def _learn(self, number: int, some: Cells, x: Tensor, head: Tensor, logs: Tensor, share: Tensor) -> None:
        """Add some cells' gradients: of the logits it is the probabilities, less 1 at the code that stands there."""
        if self.of_states is None and self.of_heads is None:
            return
        slope = logs.exp_()
        slope.scatter_add_(1, some.codes[:, None], slope.new_full((), -1.0).expand(len(slope), 1))
        if some.weights is not None:
            slope *= some.weights[:, None]
        slope = slope.to(self.dtype)
        if self.of_states is not None:
            self.of_states.index_add_(0, some.rows, (slope @ head).to(self.exact) * share)
        if self.of_heads is not None and self.dtype == self.exact:
            self.of_heads[number].addmm_(slope.T, x)
        elif self.of_heads is not None:
            self.of_heads[number] += slope.T @ x

    def _some(self, cells: Cells) -> Iterator[Cells]:
        for first in range(0, len(cells.rows), self.at_once):
            piece = slice(first, first + self.at_once)
            weights = None if cells.weights is None else cells.weights[piece]
            yield Cells(cells.rows[piece], cells.codes[piece], weights)
