"""Every metric that the suite knows: what it is called, which way is better, and what it means in one sentence."""

from __future__ import annotations

from typing import Literal, NamedTuple

Subject = Literal["signal", "codes", "distribution", "text", "speech", "music"]


class About(NamedTuple):
    """What is to be said of a metric."""

    title: str
    subject: Subject
    better: Literal["higher", "lower", ""]
    sentence: str
    unit: str = ""
    """``%`` for shares, which are kept from 0 to 1."""


SUBJECTS: dict[Subject, str] = {
    "signal": "Against its reference, sound by sound",
    "codes": "Codes",
    "distribution": "As a whole, against the references",
    "text": "Captions",
    "speech": "Speech",
    "music": "Music",
}
METRICS: dict[str, About] = {
    "si_sdr": About(
        "SI-SDR",
        "signal",
        "higher",
        "How far the reference stands above what differs from it, whatever the gain.",
        "dB",
    ),
    "stft_distance": About(
        "Multi-scale STFT distance", "signal", "lower", "Spectral convergence and log magnitudes over four windows."
    ),
    "mel_distance": About(
        "Mel distance",
        "signal",
        "lower",
        "How far mel bands are from the reference's: 6 is twice as loud, or half.",
        "dB",
    ),
    "pesq_wb": About("PESQ, wide band", "signal", "higher", "Quality of speech as listeners would rate it, 1 to 4.6."),
    "pesq_nb": About("PESQ, narrow band", "signal", "higher", "Quality of speech over a telephone, 1 to 4.6."),
    "stoi": About("STOI", "signal", "higher", "How much of the speech can be understood, 0 to 1."),
    "estoi": About("Extended STOI", "signal", "higher", "How much of the speech can be understood in varying noise."),
    "codebook_use": About("Codebook use", "codes", "higher", "The share of the codec's codes that occur.", "%"),
    "codebook_entropy": About("Codebook entropy", "codes", "higher", "Bits that one code carries.", "bits"),
    "frechet_distance": About(
        "Fréchet distance", "distribution", "lower", "Between two normal distributions; falls as sounds are added."
    ),
    "kernel_distance": About(
        "Kernel distance", "distribution", "lower", "Unbiased MMD² × 1000: 0, or just below, for sounds of one kind."
    ),
    "kl_divergence": About(
        "KL divergence", "distribution", "lower", "Of a classifier's answers: the reference's from the sound's.", "nats"
    ),
    "inception_score": About(
        "Inception score", "distribution", "higher", "Each sound clearly of one class, and all classes there."
    ),
    "text_score": About("Text score", "text", "higher", "How well a sound fits its caption."),
    "text_recall": About("Captions found", "text", "higher", "Sounds whose caption is among the first.", "%"),
    "sound_recall": About("Sounds found", "text", "higher", "Captions whose sound is among the first.", "%"),
    "word_errors": About("Word error rate", "speech", "lower", "Words put in, left out or replaced.", "%"),
    "character_errors": About("Character error rate", "speech", "lower", "Characters put in, left out, replaced.", "%"),
    "speaker_similarity": About("Speaker similarity", "speech", "higher", "The cosine of two voices' x-vectors."),
    "chroma_similarity": About(
        "Chroma similarity", "music", "higher", "Whether the same pitch classes sound at the same time."
    ),
    "chroma_entropy": About(
        "Chroma entropy", "music", "", "Over how many pitch classes a sound spreads: 0 is one, 3.58 all.", "bits"
    ),
}


def about(metric: str) -> About:
    """Of a metric, also of one among the first so many: ``text_recall_at_5``."""
    base, _, count = metric.partition("_at_")
    found = METRICS[base]
    return found._replace(title=f"{found.title} @{count}") if count else found


def number(value: float, metric: str) -> str:
    """A value as it is read: 91.2 %, 0.870, 12.4."""
    if value != value:
        return "–"
    if about(metric).unit == "%":
        return f"{100 * value:.1f}"
    size = abs(value)
    return (
        f"{value:.0f}"
        if size >= 1000
        else f"{value:.1f}"
        if size >= 100
        else f"{value:.2f}"
        if size >= 10
        else f"{value:.3f}"
    )
