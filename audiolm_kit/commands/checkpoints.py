"""The verbs about checkpoints: from other programs and to them, compared, published, looked over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from audiolm_kit.official.transfer import Reading


def import_(source: str, folder: str, *, reading: Reading) -> None:
    """Make a checkpoint of published weights: AudioGen, MusicGen, EnCodec, DAC, Mimi.

    Args:
        source: A folder, file or hub name: MusicGen, EnCodec, DAC or Mimi of transformers; AudioGen, MusicGen or their
            codec of audiocraft; encodec_24khz-*.th or encodec_48khz-*.th.
        folder: The checkpoint folder to write.
    """
    from audiolm_kit.official import transfer

    print(f"{folder}: {transfer.import_(source, folder, reading)}")


def export(checkpoint: str, *, to: Literal["transformers", "audiocraft"], output: str, t5: str = "") -> None:
    """Write a checkpoint as transformers or audiocraft opens it.

    Args:
        checkpoint: The checkpoint folder of an AudioGen or of a codec, or its name on the hub.
        to: Whose layout.
        output: The folder to write.
        t5: For audiocraft, which opens a T5 by name: which it is, as in t5-base, where the checkpoint brings its own.
    """
    from audiolm_kit import hub
    from audiolm_kit.official import transfer

    print(f"{output}: {transfer.export(hub.checkpoint(checkpoint), output, to, t5)}")


def verify(
    a: str,
    b: str,
    *,
    frames: int = 50,
    text: tuple[str, ...] = (),
    seed: int = 0,
    tolerance: float = 1e-4,
    unsafe_pickle: bool = False,
) -> int:
    """Compare two checkpoints of any layout: tensors, logits, greedy codes, sound; exit code 1 where they differ.

    Args:
        a: A folder, file or hub name, as `import` takes it.
        b: The other.
        frames: How many frames are made of each text.
        text: A caption to compare them by, in the place of built-in ones.
        seed: Of all codes and sounds that they are asked about.
        tolerance: The largest difference of logits, tensors and samples that counts as none.
        unsafe_pickle: Read pickles that hold more than weights, which runs what stands in them.
    """
    from audiolm_kit.official.verify import TEXTS
    from audiolm_kit.official.verify import verify as compare

    verdict = compare(a, b, frames, text or TEXTS, seed, tolerance, unsafe_pickle=unsafe_pickle)
    print(*verdict.lines, sep="\n")
    return 0 if verdict.equal else 1


def merge(base: str, adapters: str, *, output: str) -> None:
    """Put adapters, small matrices that a fine-tuning has learned, into their base: a checkpoint that needs neither.

    Args:
        base: The checkpoint folder that was fine-tuned, or its name on the hub.
        adapters: The folder of the adapters.
        output: The checkpoint folder to write.
    """
    from audiolm_kit import hub
    from audiolm_kit.lm.adapters import merge_folder

    lm = merge_folder(hub.checkpoint(base), adapters, output)
    print(f"{output}: {base} with {adapters}, {sum(weight.numel() for weight in lm.parameters()):,} weights")


def push(
    folder: str,
    name: str,
    *,
    licence: str,
    results: tuple[str, ...] = (),
    private: bool = False,
    dry_run: bool = False,
) -> None:
    """Publish a checkpoint on the Hugging Face hub, with a model card that says how it was made.

    A README.md that somebody has written stays as it is; one of an earlier push is written anew.

    Args:
        folder: The checkpoint folder.
        name: What it is called there, as in owner/model.
        licence: Of the weights, as the hub calls it: mit, apache-2.0, cc-by-4.0, cc-by-nc-4.0, ..., or other.
        results: A JSON file of measured numbers for the card.
        private: If it is not there yet, let only its owner see it.
        dry_run: Write the card into the folder and upload nothing.
    """
    from audiolm_kit import hub
    from audiolm_kit.model_card import write_card

    card = write_card(folder, name, licence, results)
    if dry_run:
        print(f"{card}: written; nothing is uploaded")
        return
    print(f"{hub.upload(folder, name, private)}: {folder} is uploaded")


def doctor(
    checkpoint: str | None = None,
    manifest: str = "",
    *,
    shards: str = "",
    picture: str = "doctor.png",
    device: str = "auto",
) -> int:
    """Look for what commonly goes wrong with an installation, and with a checkpoint if one is named.

    A checkpoint is opened and tried: do its parts agree, does its codec give sounds back, can it learn one batch, and
    what do generation and training take here? A minute at most for small models.

    Args:
        checkpoint: A checkpoint folder, or its name on the hub.
        manifest: Sounds of your own to try it with, the first few of them; else a built-in one.
        shards: A folder of codes, to see whether they are those that the checkpoint knows.
        picture: PNG for spectrograms of sounds before and after the codec; empty for none.
        device: Where to compute: cpu, cuda, or auto for the best there is.
    """
    from audiolm_kit.doctor.diagnosis import diagnose
    from audiolm_kit.doctor.findings import report

    return report(diagnose(checkpoint, manifest, shards, picture, device))
