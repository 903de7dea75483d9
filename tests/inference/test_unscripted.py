"""The command line and AudioLM: sounds without words, each with a note; what only other models can do is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from audiolm_kit import AudioLM, Sampling, audio, checkpoint
from audiolm_kit.audio import Sound
from audiolm_kit.cli import main
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.conditioning import TextConfig
from audiolm_kit.data.manifest import Row, write_manifest
from audiolm_kit.data.shards import open_shards
from audiolm_kit.doctor.checkpoints import check_checkpoint
from audiolm_kit.inference.chain import TEMPERATURES
from audiolm_kit.inference.unscripted import Unscripted, stage_sampling
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.semantic.tokenizer import SemanticTokenizer
from audiolm_kit.stages import Stage
from audiolm_kit.transformer import TransformerConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, audiolm: AudioLM) -> Path:
    """A checkpoint, and a recording beside it."""
    home = tmp_path_factory.mktemp("audiolm")
    audiolm.save(home / "model")
    time = torch.arange(6400) / 8000
    audio.write(home / "prompt.wav", Sound(0.3 * torch.sin(2 * torch.pi * 300 * time * (1 + time))[None], 8000))
    return home


def stages_of(folder: Path) -> list[str]:
    """The stages of the checkpoint as folders of their own, as `fit` exports them."""
    model, made = AudioLM.load(folder / "model"), []
    for name, (stage, lm) in model.stages.items():
        parts = {"lm": lm, "codec": model.codec, "semantic": model.semantic}
        if name == "semantic":
            parts.pop("codec")
        if name == "fine":
            parts.pop("semantic")
        checkpoint.save_bundle(folder / name, "AudioLMStage", parts, {}, {"stage": dataclasses.asdict(stage)})
        made.append(str(folder / name))
    return made


def test_generate_makes_as_many_sounds_as_empty_texts(folder: Path, tmp_path: Path) -> None:
    given = ["generate", str(folder / "model"), "", "", "--seconds", "0.6", "-o", str(tmp_path / "some.wav")]
    assert main(given) == 0
    one, two = (audio.read(tmp_path / f"some-{number}.wav") for number in (1, 2))
    assert one.samples.shape == two.samples.shape == (1, 4800)
    assert not torch.equal(one.samples, two.samples)
    about = json.loads((tmp_path / "some-2.json").read_text())
    assert (about["seed"], about["seconds"], about["prompt"]) == (1, 0.6, "")
    assert {name: own["temperature"] for name, own in about["sampling"].items()} == {
        name: TEMPERATURES[name] for name in ("semantic", "coarse", "fine")
    }


def test_continue_takes_an_audiolm_too(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "on.wav"
    given = ["continue", str(folder / "model"), str(folder / "prompt.wav"), "--seconds", "1.2", "-o", str(out)]
    assert main([*given, "--temperature_of", "semantic=0.9", "--seed", "3"]) == 0
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["sampling"]["semantic"]["temperature"] == 0.9
    assert about["prompt"] == "prompt.wav"
    wanted = AudioLM.load(folder / "model").continue_(
        [audio.read(folder / "prompt.wav")], 1.2, stage_sampling(Sampling(), ["semantic=0.9"]), 3
    )[0]
    torch.testing.assert_close(audio.read(out).samples, wanted.samples.clamp(-1, 1), rtol=0, atol=1e-4)


def test_a_stream_is_the_sound_that_is_made_at_once(folder: Path, tmp_path: Path) -> None:
    common = [str(folder / "model"), str(folder / "prompt.wav"), "--seconds", "1.2"]
    assert main(["continue", *common, "-o", str(tmp_path / "whole.wav")]) == 0
    assert main(["continue", *common, "--stream", str(tmp_path / "stream.wav")]) == 0
    whole, streamed = (audio.read(tmp_path / f"{name}.wav").samples for name in ("whole", "stream"))
    torch.testing.assert_close(streamed, whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("voice", [False, True])
def test_a_recording_is_said_anew_as_long_as_it_was(folder: Path, tmp_path: Path, voice: bool) -> None:
    out, prompt = tmp_path / "anew.wav", str(folder / "prompt.wav")
    given = ["generate", str(folder / "model"), "--semantics_of", prompt, "-o", str(out)]
    assert main(given + (["--voice", prompt] if voice else [])) == 0
    assert audio.read(out).samples.shape[1] == 6400
    about = json.loads(out.with_suffix(".json").read_text())
    assert (about["semantics_of"], about["voice"]) == ("prompt.wav", "prompt.wav" if voice else "")


def test_stages_are_assembled_to_the_model_that_they_were(folder: Path, tmp_path: Path) -> None:
    assert main(["assemble", *reversed(stages_of(folder)), "-o", str(tmp_path / "again")]) == 0
    assert AudioLM.load(tmp_path / "again").fingerprints == AudioLM.load(folder / "model").fingerprints


def test_a_stage_that_reads_captions_is_told_of_as_such(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TextConfig(kind="small", dim=8, layers=1, heads=1, pieces=9)
    transformer = TransformerConfig(dim=8, heads=1, layers=1, cross_attention=True)
    lm, stage = StreamLM(LMConfig(1, 12, transformer=transformer, text=text)), Stage("semantic", (0, 1), 1.0)
    checkpoint.save_bundle(
        tmp_path / "stage", "AudioLMStage", {"lm": lm}, {"text.model": b"x"}, {"stage": dataclasses.asdict(stage)}
    )
    assert main(["assemble", str(tmp_path / "stage"), "-o", str(tmp_path / "out")]) == 2
    assert "the model of stage semantic reads text (small): AudioLM has none" in capsys.readouterr().err


def test_the_doctor_tries_it_and_its_parts(folder: Path) -> None:
    told = {name: check_checkpoint(folder / name) for name in ("model", "model/semantic")}
    told["stage"] = check_checkpoint(Path(stages_of(folder)[1]))
    assert all(finding.well for finding in told.values())
    assert "semantic -> coarse -> fine, makes sound at 8000 Hz" in told["model"].told
    assert "12 codes of mel at 25 Hz" in told["model/semantic"].told
    assert "coarse, opens; audiolm-kit assemble" in told["stage"].told


def test_score_says_how_often_the_first_is_likelier(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = AudioLM.load(folder / "model")
    for number in range(4):
        pitch = 200 * (number + 2) * (1 + torch.arange(4000) // 700 % 3)
        tone = 0.2 * torch.sin(2 * torch.pi * pitch * torch.arange(4000) / 8000)
        audio.write(tmp_path / f"{number}.wav", Sound(tone[None], 8000))
    sounds = [audio.read(tmp_path / f"{number}.wav") for number in range(4)]
    likelihoods = model.log_likelihood(sounds)
    assert len(set(likelihoods)) == 4
    wins = sum(likelihoods[a] > likelihoods[b] for a, b in ((0, 1), (2, 3)))
    (tmp_path / "pairs.tsv").write_text("0.wav\t1.wav\n2.wav\t3.wav\n")
    given = ["score", str(folder / "model"), str(tmp_path / "pairs.tsv"), "-o", str(tmp_path / "scores.json")]
    assert main(given) == 0
    assert f"all: {100 * wins / 2:.1f} % of 2 pairs" in capsys.readouterr().out
    rows = json.loads((tmp_path / "scores.json").read_text())["rows"]
    assert [row["good_score"] for row in rows] == pytest.approx([likelihoods[0], likelihoods[2]], rel=1e-4)


def test_kmeans_fits_a_tokenizer_that_tokenize_takes(folder: Path, tmp_path: Path) -> None:
    rows = [Row(str(folder / "prompt.wav"), 0.8, split=split) for split in ("train", "valid")]
    write_manifest(tmp_path / "some.jsonl", rows)
    manifest, home = str(tmp_path / "some.jsonl"), tmp_path / "semantic"
    given = ["--features", "mel", "--sample_rate", "8000", "--frame_rate", "25", "--codebook_size", "5"]
    assert main(["kmeans", manifest, "-o", str(home), *given]) == 0
    assert main(["tokenize", str(home), manifest, "-o", str(tmp_path / "tokens"), "--split", "valid"]) == 0
    shards, tokenizer = open_shards(tmp_path / "tokens"), checkpoint.load(SemanticTokenizer, home)
    assert shards.format.fingerprint == checkpoint.fingerprint(tokenizer)
    [row] = list(shards)
    assert torch.equal(row.codes, tokenizer.encode(audio.read(folder / "prompt.wav").samples[None])[0])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["a bell"], "the text is 'a bell', but this checkpoint is an AudioLM, which reads none"),
        (["--negative", "rain"], "the text is 'rain', but"),
        (["--scorer", "clap"], "leave candidates and scorer out"),
        (["--voice", "x.wav"], "voice x.wav has nothing to say"),
        (["--semantics_of", "x.wav", "--seconds", "2"], "leave seconds out"),
        (["--temperature", "0.5"], "say temperature_of semantic=0.7"),
        (["--guidance_scale", "2"], "guidance_scale is 2.0, but an AudioLM reads no text"),
        (["--temperature_of", "semantic"], "wanted STAGE=NUMBER"),
        (["--temperature_of", "vocals=1"], "temperatures of vocals: the stages are"),
        (["--stream", "-"], "give output or stream"),
    ],
)
def test_what_an_audiolm_cannot_do_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], wanted: str
) -> None:
    assert main(["generate", str(folder / "model"), "-o", str(tmp_path / "a.wav"), *given]) == 2
    assert wanted in capsys.readouterr().err


def test_stages_have_no_say_without_an_audiolm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["generate", str(tmp_path), "", "-o", str(tmp_path / "a.wav")]
    assert main([*given, "--temperature_of", "semantic=1"]) == 2
    assert "holds no AudioLM: leave it out" in capsys.readouterr().err


def test_only_what_streams_to_standard_output_is_endless() -> None:
    with pytest.raises(ValueError, match="only what streams to standard output is endless"):
        Unscripted(stage_sampling(Sampling(), []), endless=True, output="a.wav")
    with pytest.raises(ValueError, match="a stream is one sound"):
        Unscripted(stage_sampling(Sampling(), []), stream="a.wav", count=2)


def test_an_endless_stream_has_no_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert Unscripted(stage_sampling(Sampling(), []), endless=True, stream="-").length == math.inf


def test_an_audiogen_codec_is_still_tokenized_as_before(folder: Path, tmp_path: Path, audiolm: AudioLM) -> None:
    write_manifest(tmp_path / "some.jsonl", [Row(str(folder / "prompt.wav"), 0.8)])
    given = [str(folder / "model/codec"), str(tmp_path / "some.jsonl"), "-o", str(tmp_path / "tokens")]
    assert main(["tokenize", *given]) == 0
    assert open_shards(tmp_path / "tokens").format.fingerprint == checkpoint.fingerprint(
        checkpoint.load(NeuralCodec, folder / "model/codec")
    )
