"""Prompts for an AudioLM are words of an AudioGen in a row, each cut out of its silence, as loud as the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import publish_prompts
import pytest
import torch

from audiolm_kit import Sampling, Sound, audio

RATE = 8000


class Speaker:
    """Says a tone of a length and a loudness that its seed decides, silence around it."""

    sample_rate = RATE

    def __init__(self, loud: float = 1.0) -> None:
        self.loud, self.asked = loud, list[Any]()

    def generate(self, texts: list[str], seconds: float, sampling: Sampling, seed: int) -> list[Sound]:
        self.asked.append((texts, seconds, sampling, seed))
        tones = [torch.sin(torch.arange(800 * (seed + i)) * 0.5) / (seed + i) for i in range(1, len(texts) + 1)]
        return [Sound(torch.nn.functional.pad(self.loud * tone[None], (300, 500)), RATE) for tone in tones]


def test_words_stand_in_a_row_with_pauses_between() -> None:
    model: Any = Speaker()
    made = publish_prompts.prompt(model, "Greek: three four", Sampling(temperature=0.8), 0.8, 1)
    texts = [f"a man with a Greek accent says the digit {word}" for word in ("three", "four")]
    assert model.asked == [(texts, 0.8, Sampling(temperature=0.8), 1)]
    first, pause, second, behind = made.samples.split([1599, 1280, 2399, 480], dim=1)  # tones begin with a zero
    assert not pause.any() and not behind.any()
    levels = [audio.rms_dbfs(part) for part in (first, second)]
    assert levels == pytest.approx([-20, -20], abs=0.1)


@pytest.mark.parametrize("asked", ["three four", "Greek:", ": three"])
def test_another_form_is_refused_in_one_line(asked: str) -> None:
    model: Any = Speaker()
    with pytest.raises(ValueError, match='wanted "ACCENT: WORD WORD", as in "Greek: three four"'):
        publish_prompts.prompt(model, asked, Sampling(), 0.8, 1)


def test_silence_is_no_word() -> None:
    model: Any = Speaker(loud=0.0)
    with pytest.raises(ValueError, match="a word is silence: ask with another seed"):
        publish_prompts.prompt(model, "Greek: three", Sampling(), 0.8, 1)


def test_the_program_writes_a_file_for_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish_prompts.main(["Greek: three", "German: one two", "-o", str(tmp_path)])
    assert [audio.info(tmp_path / f"{number}.flac")[0] for number in (1, 2)] == [16000, 16000]
    with pytest.raises(SystemExit):
        publish_prompts.main(["three", "-o", str(tmp_path)])
    assert "prompt is 'three', wanted" in capsys.readouterr().err
