"""What judges hear in an experiment's arms, and the table that is counted from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import guidance_table
import judge_arms
import numpy as np
import pytest
import sound_arms
import verdicts
import word_judge

from audiolm_kit import Sampling

TOOLS = Path(__file__).parents[2] / "tools"
JUDGES = """
import json
from pathlib import Path
import numpy as np
def load16(path):
    with open(Path(__file__).parent / "heard", "a") as log:
        print(path, file=log)
    return np.full(32000, len(Path(path).read_text()))
def digit(audio): return "one" if audio[0] == 1 else "two"
def event_scores(audio): return {"dog": float(len(audio)), "rain": 100.0}
def yamnet(audio): return np.zeros((2, 3)), np.stack([audio[:4], audio[:4] + 2])
"""


@pytest.fixture
def judges(tmp_path: Path) -> Path:
    folder = tmp_path / "judges"
    folder.mkdir()
    (folder / "judges.py").write_text(JUDGES)
    return folder


def arm(folder: Path, contents: list[str], labels: list[str], settings: str = "first") -> Path:
    """An arm whose sounds are text files."""
    folder.mkdir(parents=True, exist_ok=True)
    sounds = []
    for number, (content, label) in enumerate(zip(contents, labels, strict=True)):
        (folder / f"{number}.flac").write_text(content)
        sounds.append({"path": f"{number}.flac", "labels": [label]})
    (folder / "index.json").write_text(json.dumps({"settings": settings, "sounds": sounds}))
    return folder


def hear(judges: Path, judge: str, *arms: Path, more: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, TOOLS / "judge_arms.py", "--judges", judges, "--judge", judge, *more, *arms]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def test_every_sound_is_heard_once_and_again_only_when_the_arm_has_changed(judges: Path, tmp_path: Path) -> None:
    folder = arm(tmp_path / "arm", ["a", "bb", "c"], ["one", "one", "one"])
    assert hear(judges, "digit", folder).returncode == 0
    found = verdicts.heard(folder)
    assert found.best() == ["one", "two", "one"]
    assert found.right().tolist() == [1, 0, 1]
    assert found.vectors.tolist() == [[2] * 4, [3] * 4, [2] * 4]
    assert hear(judges, "digit", folder).returncode == 0
    assert len((judges / "heard").read_text().splitlines()) == 3
    arm(folder, ["a", "bb", "c"], ["one", "one", "one"], settings="second")
    assert hear(judges, "digit", folder).returncode == 0
    assert len((judges / "heard").read_text().splitlines()) == 6


def test_the_last_seconds_alone_can_be_heard(judges: Path, tmp_path: Path) -> None:
    folder = arm(tmp_path / "arm", ["a"], ["dog"])
    assert hear(judges, "event", folder, more=("--last_seconds", "0.001")).returncode == 0
    found = verdicts.heard(folder)
    assert found.sounds[0]["heard"] == {"dog": 16.0, "rain": 100.0}
    assert found.best() == ["rain"]


class Decoder:
    """What PocketSphinx offers: the longer a sound, the later in the alphabet is the word that it hears."""

    def __init__(self, **options: Any) -> None:
        assert options == {"lm": None, "bestpath": False, "fwdflat": False, "loglevel": "FATAL"}

    def lookup_word(self, word: str) -> str | None:
        return None if word == "blorptang" else "P R"

    def add_jsgf_string(self, name: str, grammar: str) -> None:
        self.words = grammar.partition("<word> = ")[2].rstrip(" ;\n").split(" | ")

    def activate_search(self, name: str) -> None:
        assert name == "word"

    def start_utt(self) -> None: ...

    def process_raw(self, heard: bytes, full_utt: bool) -> None:
        samples = np.frombuffer(heard, np.int16)
        still = round(0.2 * 16000)
        assert full_utt and 0 < np.abs(samples[:still]).max() < 33  # the silence before it is near silence
        assert np.abs(samples).max() == pytest.approx(0.3 * 32767, rel=0.02)
        self.length = len(samples) - 2 * still

    def end_utt(self) -> None: ...

    def hyp(self) -> SimpleNamespace | None:
        place = self.length // 1000 - 1
        return SimpleNamespace(hypstr=self.words[place]) if place < len(self.words) else None


def test_which_of_an_arms_labels_is_said_another_recogniser_hears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", SimpleNamespace(Decoder=Decoder))
    word_judge.recogniser.cache_clear()
    folder = arm(tmp_path / "arm", ["a" * 1000, "a" * 2000, "a" * 1000, "a" * 9000], ["go", "stop", "stop", "go"])
    judges: Any = SimpleNamespace(
        load16=lambda path: np.full(len(path.read_text()), 0.01), yamnet=lambda audio: (None, np.ones((2, 3)))
    )
    judge_arms.judge_arm(judges, folder, {"judge": "word", "last_seconds": 0.0})
    found = verdicts.heard(folder)
    assert found.best() == ["go", "stop", "go", ""] and found.right().tolist() == [1, 1, 0, 0]
    assert json.loads((folder / "verdicts.json").read_text())["asked"]["words"] == ["go", "stop"]
    with pytest.raises(ValueError, match="cannot pronounce 'blorptang'"):
        word_judge.word(np.zeros(1000), ["go", "blorptang"])


def test_without_its_recogniser_of_words_a_judge_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    word_judge.recogniser.cache_clear()
    with pytest.raises(ValueError, match="pip install pocketsphinx"):
        word_judge.word(np.zeros(1000), ["go"])


def test_an_arm_without_sounds_is_named(judges: Path, tmp_path: Path) -> None:
    done = hear(judges, "digit", tmp_path / "nothing")
    assert done.returncode != 0
    assert "nothing/index.json" in done.stderr and "Traceback" not in done.stderr


def test_voices_are_heard_on_both_sides_of_the_prompts_end_at_one_level(tmp_path: Path) -> None:
    sounds = [{"path": "a.flac", "labels": ["a"]}, {"path": "b.flac", "labels": ["b"], "from": 1.0}]
    (tmp_path / "index.json").write_text(json.dumps({"settings": {}, "sounds": sounds}))
    calls: list[int] = []

    def speaker(audio: np.ndarray) -> np.ndarray:
        calls.append(len(audio))
        return np.array([np.sqrt((audio**2).mean()), 0.0])

    load16 = lambda path: np.concatenate([np.zeros(3 * 16000), np.full(16000, 0.5)])  # noqa: E731
    judges: Any = SimpleNamespace(load16=load16, speaker=speaker)
    asked = {"judge": "voice", "from": 3.0, "level": judge_arms.LEVEL}
    judge_arms.judge_arm(judges, tmp_path, asked)
    judge_arms.judge_arm(judges, tmp_path, asked)
    assert calls == [16000, 3 * 16000]  # each once; silence has no voice
    found = verdicts.voices(tmp_path)
    assert found.labels == ["a", "b"] and not found.before.any()
    level = pytest.approx(judge_arms.LEVEL)
    assert found.behind.tolist() == [[level, 0], [level, 0]]


def test_notes_stand_in_the_order_of_their_onsets(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"settings": {}, "sounds": [{"path": "a.flac", "labels": ["a"]}]}))
    judges: Any = SimpleNamespace(notes=lambda path: np.array([[2.00049, 3, 62], [1, 2, 60]]))
    judge_arms.judge_arm(judges, tmp_path, {"judge": "notes"})
    assert json.loads((tmp_path / "notes.json").read_text())["sounds"][0]["notes"] == [[1, 2, 60], [2, 3, 62]]


def write_heard(folder: Path, words: list[str], labels: list[str]) -> None:
    folder.mkdir(parents=True)
    sounds = [{"labels": [label], "heard": word} for word, label in zip(words, labels, strict=True)]
    told = {"asked": {}, "sounds": sounds}
    (folder / "verdicts.json").write_text(json.dumps(told))
    np.save(folder / "vectors.npy", np.random.default_rng(len(words)).random((len(words), 4)))


def test_a_guidance_table_says_what_was_gained_and_reached(tmp_path: Path) -> None:
    labels = ["one", "two"] * 50
    wrong = ["nine"] * 100
    for kind in ("real", "reconstruction"):
        write_heard(tmp_path / "recordings" / kind, labels, labels)
    for seed in range(3):
        write_heard(tmp_path / "guidance" / f"model-{seed}-scale-1", labels[:60] + wrong[:40], labels)
        write_heard(tmp_path / "guidance" / f"model-{seed}-scale-3", labels[:90] + wrong[:10], labels)
        bold = sound_arms.setting(Sampling(guidance_scale=3.0, temperature=0.8))
        write_heard(tmp_path / "guidance" / f"model-{seed}-{bold}", labels[:80] + wrong[:20], labels)
        chosen = sound_arms.setting(Sampling(guidance_scale=3.0, temperature=0.8), 4)
        write_heard(tmp_path / "guidance" / f"model-{seed}-{chosen}", labels[:85] + wrong[:15], labels)
        scored = sound_arms.chosen(f"model-{seed}", 1.0, 0).name
        write_heard(tmp_path / "guidance" / scored, labels[:88] + wrong[:12], labels)
    judges = SimpleNamespace(kad=lambda a, b: 1.5)
    rows = {each["what"]: each for each in guidance_table.guidance_table(judges, tmp_path, "model", "digit", 0.97)}
    assert rows["digit heard: guidance 1"]["value"] == pytest.approx(0.6)
    assert rows["digit heard: guidance 3"]["value"] == pytest.approx(0.9)
    assert rows["digit heard: guidance 3"]["rule"] == {
        "wanted": "at least 97 % of the reconstruction",
        "reached": 0.9,
        "passed": False,
    }
    gain = rows["gain: guidance 3 less guidance 1, same captions and seeds"]
    assert gain["value"] == pytest.approx(0.3) and gain["rule"]["passed"] and gain["interval"][0] > 0.15
    assert 0.3 < rows["guidance 3 against shuffled captions (floor)"]["value"] < 0.6
    assert rows["KAD to the real recordings: guidance 3"]["value"] == 1.5
    heard = [name for name in rows if "guidance" in name and name.startswith("digit heard: ")]
    assert [name.removeprefix("digit heard: ") for name in heard] == [
        *("guidance 1", "guidance 3", "guidance 3, temperature 0.8"),
        "the best of 4 takes by the model itself, guidance 3, temperature 0.8",
        "the best of 4 takes by its scorer, guidance 3, temperature 0.8",
    ]
    assert [rows[each]["value"] for each in heard] == pytest.approx([0.6, 0.9, 0.8, 0.85, 0.88])
    assert ["rule" in rows[each] for each in heard] == [False, True, False, False, False]


def test_the_published_models_row_has_a_rule_where_one_is_wanted(tmp_path: Path) -> None:
    write_heard(tmp_path / "arm", ["one", "two"], ["one", "one"])
    told = guidance_table.published(tmp_path / "arm", "digit", 0.95)
    assert told["value"] == 0.5
    assert told["rule"] == {"wanted": "at least 95 %", "reached": 0.5, "passed": False}
    assert "rule" not in guidance_table.published(tmp_path / "arm", "word", None)


def test_a_setting_that_was_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no arm single-"):
        verdicts.arms(tmp_path, "single-*")
