"""A recogniser of single words that others have trained: PocketSphinx, whose package brings its model of English.

It hears which of some words was said, no matter which voice says it, and has heard none of our recordings. Its package
goes into the judges' environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

SAMPLE_RATE = 16000
LEVEL = 0.3
"""Peak of every word."""
STILL = 0.2
"""Seconds of near silence put before and behind a word: its ends are found by them."""
FAINT = 1e-4
"""Standard deviation of that silence: zeros alone have no spectrum."""


def word(samples: np.ndarray, words: Sequence[str]) -> str:
    """Which of the words is said in ``samples`` [L], mono at 16 kHz; "" where it hears none of them.

    Raises:
        ValueError: PocketSphinx is not there, or has no pronunciation for a word.
    """
    loud = samples / max(float(np.abs(samples).max(initial=0.0)), 1e-9) * LEVEL
    heard = np.pad(loud, round(STILL * SAMPLE_RATE))
    heard = heard + np.random.default_rng(0).normal(0, FAINT, len(heard))
    decoder = recogniser(tuple(words))
    decoder.start_utt()
    decoder.process_raw((heard.clip(-1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return str(found.hypstr) if found else ""


@cache
def recogniser(words: tuple[str, ...]) -> Any:
    """A decoder that knows these words alone; its later passes, made for sentences, hear single words worse."""
    try:
        from pocketsphinx import Decoder
    except ImportError:
        raise ValueError("words are heard by PocketSphinx: pip install pocketsphinx where the judges are") from None
    decoder = Decoder(lm=None, bestpath=False, fwdflat=False, loglevel="FATAL")
    if unknown := [each for each in words if decoder.lookup_word(each) is None]:
        raise ValueError(f"PocketSphinx cannot pronounce {unknown[0]!r}: ask for English words")
    decoder.add_jsgf_string("word", f"#JSGF V1.0;\ngrammar word;\npublic <word> = {' | '.join(words)};\n")
    decoder.activate_search("word")
    return decoder
