"""Give a trained AudioGen the codec that has learned more since, its codes the same: one with a postfilter.

    python tools/with_codec.py lm/begun-0 wide/codec -o lm/wide-0

A language model learns codes, and how they are decoded is nothing to it. So it can learn beside a postfilter
(``PostfilterTask``), from the codes of the codec that both begin with, which the new codec has to name as its base, or
to be.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiolm_kit import AudioGen, NeuralCodec, checkpoint, provenance


def with_codec(model: Path, codec: Path, output: Path) -> None:
    """Write the model with that codec; what is known of its training goes along.

    Raises:
        FileNotFoundError: a checkpoint is missing.
        ValueError: the codec does not say that it came from the model's, or a checkpoint is of another kind.
    """
    old, new = AudioGen.load(model), checkpoint.load(NeuralCodec, codec)
    own, named = checkpoint.fingerprint(old.codec), bases(provenance.read(codec))
    if own not in (checkpoint.fingerprint(new), *named):
        told = ", which came of ".join(named) or "none"
        raise ValueError(f"{codec} came of the codec {told}, and {model} has learned codes of {own}: train one anew")
    AudioGen(new, old.lm, old.conditioner, old.scorer).save(output)
    if facts := provenance.read(model):
        checkpoint.write_json(output / provenance.FILE, facts)


def bases(facts: Mapping[str, Any]) -> list[str]:
    """The fingerprints of the codecs that one came of, the last one first."""
    base = facts.get("base", {})
    return [base["fingerprint"], *bases(base)] if "fingerprint" in base else []


def main() -> None:
    """Read the command line and write the checkpoint."""
    parser = argparse.ArgumentParser(description="Give a model the codec that has learned more, its codes the same.")
    parser.add_argument("model", type=Path, help="folder of an AudioGen")
    parser.add_argument("codec", type=Path, help="folder of the codec, of which the model's is the base")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    try:
        with_codec(given.model, given.codec, given.output)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
