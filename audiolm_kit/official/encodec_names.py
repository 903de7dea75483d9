"""EnCodec's weights under the names of the encodec package, which audiocraft shares, of transformers, and ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from audiolm_kit.codec.model import CodecConfig, NeuralCodec

Names = tuple[tuple[str, str], ...]
"""(pattern, replacement), in their order; each name passes through the whole table."""

# Weight norm has had two ways in torch, and files are spelt in either.
OLD_SPELLING: Names = (
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
)
NEW_SPELLING: Names = (
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)
OUR_NAMES: Names = (  # from encodec's
    (r"^(encoder|decoder)\.model\.(\d+)\.", r"\1.layers.\2."),
    (r"\.conv\.(conv|norm)\.", r".\1."),
    (r"\.convtr\.convtr\.", ".upsample."),
    (r"\.convtr\.norm\.", ".norm."),
    *NEW_SPELLING,
    (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.books.\1."),
    (r"^(quantizer\..*)\.embed_avg$", r"\1.embed_sum"),
)
# The same way back; ".norm." is left to `encodec_state`, since what it follows decides its name.
THEIR_NAMES: Names = (
    (r"^(encoder|decoder)\.layers\.(\d+)\.", r"\1.model.\2."),
    (r"\.conv\.(?!norm\.)", ".conv.conv."),
    (r"\.upsample\.", ".convtr.convtr."),
    *OLD_SPELLING,
    (r"^quantizer\.books\.(\d+)\.", r"quantizer.vq.layers.\1._codebook."),
    (r"^(quantizer\..*)\.embed_sum$", r"\1.embed_avg"),
)
TRANSFORMERS_NAMES: Names = (  # from ours
    (r"\.upsample\.", ".conv."),
    (r"^quantizer\.books\.(\d+)\.", r"quantizer.layers.\1.codebook."),
    (r"^(quantizer\..*)\.embed_sum$", r"\1.embed_avg"),
)


def codec_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of encodec or audiocraft under our names.

    Raises:
        ValueError: it holds something else.
    """
    refuse_others(state)
    return {_renamed(name, OUR_NAMES): tensor for name, tensor in state.items()}


def encodec_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a SEANet `NeuralCodec` under EnCodec's names, in its order; the inverse of `codec_state`."""
    renamed = {}
    for name, tensor in state.items():
        after_upsampling = name.replace(".norm.", ".upsample.") in state
        name = name.replace(".norm.", ".convtr.norm." if after_upsampling else ".conv.norm.")
        renamed[_renamed(name, THEIR_NAMES)] = tensor
    return renamed


def transformers_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a SEANet `NeuralCodec` under the names of transformers' ``EncodecModel``, in its order."""
    return {_renamed(name, TRANSFORMERS_NAMES): tensor for name, tensor in state.items()}


class Layout(NamedTuple):
    """How somebody calls the weights of a codec."""

    named: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    """A state dict of ours under their names, in its order."""
    spelling: Names
    """Of weight norm, as they have it today."""


ENCODEC = Layout(encodec_state, OLD_SPELLING)
TRANSFORMERS = Layout(transformers_state, NEW_SPELLING)


def filled(config: CodecConfig, state: Mapping[str, Tensor], layout: Layout, source: str) -> NeuralCodec:
    """A codec with weights that are called as in ``layout``, in evaluation mode.

    Args:
        source: where they come from, for the message.

    Raises:
        ValueError: some are missing, unknown or wrongly shaped; it names them.
    """
    codec = NeuralCodec(config)
    ours = codec.state_dict()
    wanted = layout.named(ours)
    found = {_renamed(name, layout.spelling): tensor for name, tensor in state.items()}
    wrong = [name for name in wanted if name in found and wanted[name].shape != found[name].shape]
    faults = {"lacks": wanted.keys() - found.keys(), "has unknown": found.keys() - wanted.keys()}
    for title, names in {**faults, "has wrongly shaped": wrong}.items():
        if names:
            shown = ", ".join(sorted(names)[:4]) + (", ..." if len(names) > 4 else "")
            raise ValueError(f"{source} {title} tensors ({len(names)}): {shown}; it is not whole, or another model's")
    codec.load_state_dict({name: found[theirs] for name, theirs in zip(ours, wanted, strict=True)})
    return codec.eval()


def refuse_others(state: Mapping[str, object]) -> None:
    """Refuse what is no state dict of EnCodec at all.

    Raises:
        ValueError: it says what is there.
    """
    foreign = [
        str(name)
        for name, tensor in state.items()
        if not isinstance(tensor, Tensor) or not re.match(r"(encoder|decoder)\.model\.|quantizer\.vq\.", str(name))
    ]
    if foreign or not state:
        raise ValueError(
            f"no EnCodec weights, but {', '.join(foreign[:3]) or 'nothing at all'}: give the bare state dict of encodec"
        )


def _renamed(name: str, table: Names) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name
