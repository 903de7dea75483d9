"""The checks: each holds where it should and fails where it should."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import check_sounds as tool
import make_sounds as maker
import pytest
import results
import torch

from audiolm_kit.audio import Sound, read, write

NUM_KINDS = len(maker.KINDS)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A manifest of made-up sounds, and a folder in which other ones stand for real, reconstructed and generated."""
    folder = tmp_path_factory.mktemp("sounds")
    manifest = maker.make_set(folder / "data", maker.SoundSet(6 * NUM_KINDS))
    for number in range(1, NUM_KINDS + 1):
        real = maker.make_clip(number - 1, maker.SoundSet(NUM_KINDS, seed=7))
        other = maker.make_clip(number - 1, maker.SoundSet(NUM_KINDS, seed=8))
        noise = 0.002 * torch.randn(real.sound.samples.shape, generator=torch.Generator().manual_seed(number))
        sounds = {
            "real": real.sound.samples,
            "reconstruction": real.sound.samples + noise,
            "generated": other.sound.samples,
        }
        for role, samples in sounds.items():
            write(folder / "listen" / role / f"{number}.wav", Sound(samples, 16000))
        (folder / f"listen/real/{number}.json").write_text(json.dumps({"label": real.label}))
    return folder / "listen", manifest


@pytest.fixture
def check(known: tuple[Path, Path], tmp_path: Path) -> Callable[..., dict[str, bool]]:
    """Changes a copy of the folder, checks it, and says which checks hold."""
    folder, manifest = known
    shutil.copytree(folder, tmp_path / "listen")

    def run(change: Callable[[Path], None] = lambda folder: None) -> dict[str, bool]:
        change(tmp_path / "listen")
        code = 0
        try:
            tool.main([str(tmp_path / "listen"), str(manifest), "-o", str(tmp_path / "checks.json")])
        except SystemExit as stopped:
            code = stopped.code
        written = json.loads((tmp_path / "checks.json").read_text())
        holds = {entry["name"]: entry["holds"] for entry in written["checks"]}
        assert code == (0 if all(holds.values()) else 1)
        return holds

    return run


def test_what_was_measured_is_a_table_of_results(check, tmp_path: Path) -> None:
    check()
    lines = results.render_file(tmp_path / "checks.json").splitlines()
    assert lines[2] == "    make -C recipes/hello smoke"
    found = "reconstructions that are nearest to their own recording"
    assert f"| {found} | 100.0 % |  | {NUM_KINDS} | more than half |  | met |" in lines
    assert sum(line.startswith("| wanted kind heard: ") for line in lines) == 4 and len(lines) == 12


def test_good_sounds_pass_every_check(check) -> None:
    assert check() == {"quietest_dbfs": True, "recordings_found": True, "text_followed": True}


def test_a_silent_sound_is_found(check) -> None:
    def silence(folder: Path) -> None:
        write(folder / "generated/3.wav", Sound(torch.full((1, 32000), 1e-4), 16000))

    assert check(silence)["quietest_dbfs"] is False


def test_reconstructions_of_other_recordings_fail(check) -> None:
    def shift(folder: Path) -> None:
        sounds = [read(folder / f"real/{number}.wav") for number in range(1, NUM_KINDS + 1)]
        for number, sound in enumerate(sounds[1:] + sounds[:1], start=1):
            write(folder / f"reconstruction/{number}.wav", sound)

    assert check(shift) == {"quietest_dbfs": True, "recordings_found": False, "text_followed": True}


def test_sounds_that_do_not_follow_their_text_fail(check) -> None:
    def same(folder: Path) -> None:
        for number in range(1, NUM_KINDS + 1):
            shutil.copyfile(folder / "real/1.wav", folder / f"generated/{number}.wav")

    assert check(same) == {"quietest_dbfs": True, "recordings_found": True, "text_followed": False}


def test_the_judge_hears_unseen_sounds_right(known: tuple[Path, Path]) -> None:
    judge = tool.Judge(known[1])
    clips = [maker.make_clip(index, maker.SoundSet(4 * NUM_KINDS, seed=9)) for index in range(4 * NUM_KINDS)]
    assert judge.accuracy([tool.decibels(clip.sound) for clip in clips], [clip.label for clip in clips]) > 0.95
    assert judge.chance == pytest.approx(1 / 13)


def test_a_missing_sound_is_one_line(known: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    shutil.copytree(known[0], tmp_path / "listen")
    (tmp_path / "listen/generated/2.wav").unlink()
    with pytest.raises(SystemExit) as stopped:
        tool.main([str(tmp_path / "listen"), str(known[1]), "-o", str(tmp_path / "checks.json")])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1 and "generated/2.wav" in error
