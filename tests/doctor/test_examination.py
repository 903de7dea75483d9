"""A checkpoint is tried with sounds: codec, agreement, likelihood, one batch; each finding has its cure."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from audiolm_kit import audio, checkpoint
from audiolm_kit.audio import Sound
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.data.manifest import Row, write_manifest
from audiolm_kit.data.shards import TokenFormat, TokenRow, write_shards
from audiolm_kit.doctor import estimate, trial
from audiolm_kit.doctor.agreement import check_agreement, check_model
from audiolm_kit.doctor.batches import batch_of, loss_of
from audiolm_kit.doctor.checkpoints import Model, Patient, examine
from audiolm_kit.doctor.codecs import check_codec, check_semantic
from audiolm_kit.doctor.diagnosis import diagnose
from audiolm_kit.doctor.examination import Asked, examination
from audiolm_kit.doctor.findings import Finding
from audiolm_kit.doctor.sounds import Clips, built_in_sound, clips_of
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.inference.audiolm import AudioLM
from audiolm_kit.lm.model import LMConfig, Prefix, StreamLM
from audiolm_kit.semantic.features import FeatureConfig, FrameFeatures
from audiolm_kit.semantic.tokenizer import with_centroids
from audiolm_kit.stages import Stage
from audiolm_kit.transformer import TransformerConfig


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tones, a silent file among them."""
    folder = tmp_path_factory.mktemp("sounds")
    rows = []
    for number, pitch in enumerate((0, 300, 500, 900)):
        samples = 0.3 * torch.sin(2 * math.pi * pitch * torch.arange(4800) / 8000)[None]
        audio.write(folder / f"{number}.wav", Sound(samples, 8000))
        rows.append(Row(str(folder / f"{number}.wav"), 0.6, caption="a bell rings"))
    write_manifest(folder / "all.jsonl", rows)
    return folder / "all.jsonl"


def an_audiolm() -> AudioLM:
    """Semantic codes at 25 Hz, a codec of 4 codebooks of 16 at 50 Hz, three stages; random weights."""
    torch.manual_seed(0)
    features = FrameFeatures(FeatureConfig("mel", sample_rate=8000, hop=320, num_mels=8))
    semantic = with_centroids(features, torch.randn(12, 8), torch.full((8,), -2.0), torch.full((8,), 2.0))
    body = ConvNeXtConfig(dim=8, width=16, encoder_layers=1, decoder_layers=1, hop=80, fft_size=160, frames_per_code=2)
    quantizer = QuantizerConfig(num_codebooks=4, codebook_size=16, dim=8)
    codec = NeuralCodec(CodecConfig(sample_rate=8000, convnext=body, quantizer=quantizer))
    transformer = TransformerConfig(dim=16, heads=2, layers=1, positions="rotary")

    def lm(num_codebooks: int, size: int, prefix: Prefix) -> StreamLM:
        return StreamLM(LMConfig(num_codebooks, size, "flatten", transformer, prefix=prefix))

    stages = {
        "semantic": (Stage("semantic", (0, 1), 2.0, codes_per_second=10.0), lm(1, 12, Prefix())),
        "coarse": (Stage("coarse", (0, 2), 0.6, (0, 1), codes_per_second=10.0), lm(2, 16, Prefix(1, 12))),
        "fine": (Stage("fine", (2, 4), 0.2, (0, 2)), lm(2, 16, Prefix(2, 16))),
    }
    return AudioLM(semantic, codec, stages)


def patient_of(folder: Path) -> Patient:
    finding, patient = examine(folder)
    assert patient is not None, finding
    return patient


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_all_is_tried_in_order(audiogen_folder: Path, manifest: Path, tmp_path: Path) -> None:
    findings = list(examination(audiogen_folder, Asked(str(manifest), picture=str(tmp_path / "a.png"))))
    names = ["checkpoint", "agreement", "codec", "generate", "model", "one batch", "fit"]
    assert [finding.name for finding in findings] == names
    found = by_name(findings)
    assert (tmp_path / "a.png").stat().st_size > 1000 and f"in {tmp_path / 'a.png'}" in found["codec"].told
    assert found["one batch"].well and "learns 3 x 0.6 s by heart: loss" in found["one batch"].told
    assert "the first 3 sounds of all.jsonl" in found["codec"].told  # the silent one is passed over
    assert "key-value cache" in found["generate"].told and "for each second of sound" in found["generate"].told


def test_a_codec_alone_learns_one_batch(audiogen_folder: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "STEPS", 8)
    before = checkpoint.fingerprint(patient_of(audiogen_folder / "codec").codec)  # type: ignore[arg-type]
    findings = list(examination(audiogen_folder / "codec", Asked(str(manifest))))
    assert [finding.name for finding in findings] == ["checkpoint", "codec", "generate", "one batch", "fit"]
    assert findings[3].well, findings[3]
    assert before in findings[0].told


def test_nothing_but_a_picture_is_written_and_the_model_stays(audiogen_folder: Path, manifest: Path) -> None:
    patient = patient_of(audiogen_folder)
    model = patient.models["lm"]
    before = checkpoint.fingerprint(model.lm)
    batch = batch_of(patient, model, clips_of(str(manifest)).clips)
    done = trial.learn_lm(model.lm, batch, budget=5)
    assert checkpoint.fingerprint(model.lm) == before and not model.lm.training
    assert len(done.losses) == trial.STEPS and done.losses[-1] < done.losses[0]


def test_a_weight_that_is_no_number_is_named(audiogen_folder: Path, manifest: Path) -> None:
    patient = patient_of(audiogen_folder)
    model = patient.models["lm"]
    batch = batch_of(patient, model, clips_of(str(manifest)).clips)
    with torch.no_grad():
        model.lm.heads.weight[3] = torch.nan
    finding = trial.told_of("lm", trial.learn_lm(model.lm, batch))
    assert "lm cannot learn" in finding.told and "is not finite" in finding.told and finding.cure


def test_activations_are_counted_by_rows(audiogen_folder: Path, manifest: Path) -> None:
    patient = patient_of(audiogen_folder)
    model, clips = patient.models["lm"], clips_of(str(manifest)).clips
    one, two = (trial.learn_lm(model.lm, batch_of(patient, model, clips[:1] * n), 0).activations for n in (1, 2))
    assert one < two <= 2 * one


def test_a_model_that_knows_nothing_of_its_codes_is_a_fault(audiogen_folder: Path, manifest: Path) -> None:
    patient = patient_of(audiogen_folder)
    model = patient.models["lm"]
    batch = batch_of(patient, model, clips_of(str(manifest)).clips)
    with torch.no_grad():
        model.lm.heads.weight.mul_(30)  # sure of what is wrong
    assert "chance is 2.77" in check_model("lm", model, batch).told and check_model("lm", model, batch).cure
    with torch.no_grad():
        model.lm.heads.weight.zero_()
    loss = float(loss_of(model.lm, batch).detach())
    assert loss == pytest.approx(math.log(16), rel=1e-5)


def test_a_codec_that_says_nothing_is_a_fault_on_own_sounds_alone(audiogen_folder: Path, manifest: Path) -> None:
    codec = AudioGen.load(audiogen_folder).codec
    own, built_in = check_codec(codec, clips_of(str(manifest)), ""), check_codec(codec, clips_of(""), "")
    assert "next to nothing of these sounds" in own.cure and built_in.well
    codec.quantizer.books[0].embed.zero_()  # type: ignore[union-attr]
    codec.quantizer.books[1].embed.zero_()  # type: ignore[union-attr]
    assert "the codebooks have collapsed" in check_codec(codec, clips_of(str(manifest)), "").cure


def test_a_perfect_codec_is_well(manifest: Path, monkeypatch: pytest.MonkeyPatch, audiogen_folder: Path) -> None:
    codec = AudioGen.load(audiogen_folder).codec
    given: list[torch.Tensor] = []

    def encode(samples: torch.Tensor) -> torch.Tensor:
        given.append(samples)
        return torch.arange(2 * 60).view(1, 2, 60) % 16

    def decode(codes: torch.Tensor) -> torch.Tensor:
        right = torch.equal(codes, torch.arange(2 * 60).view(1, 2, 60) % 16)
        return given[-1] if right else torch.randn(given[-1].shape, generator=torch.Generator().manual_seed(1))

    monkeypatch.setattr(codec, "encode", encode)
    monkeypatch.setattr(codec, "decode", decode)
    found = check_codec(codec, clips_of(str(manifest)), "")
    assert found.well and "SI-SDR 100.0 dB, mel distance 0.0 dB" in found.told


def test_parts_of_another_shape_do_not_agree(audiogen_folder: Path) -> None:
    patient = patient_of(audiogen_folder)
    assert check_agreement(patient).well
    codec = patient.codec
    assert isinstance(codec, NeuralCodec)
    quantizer = dataclasses.replace(codec.config.quantizer, codebook_size=9)
    other = NeuralCodec(dataclasses.replace(codec.config, quantizer=quantizer))
    found = check_agreement(patient._replace(codec=other))
    assert "lm learns 2 codebooks of 16, and its codec makes 2 codebooks of 9" in found.told and found.cure


def test_shards_are_those_of_the_codec_or_are_named(audiogen_folder: Path, tmp_path: Path) -> None:
    patient = patient_of(audiogen_folder)
    assert isinstance(patient.codec, NeuralCodec)
    own = checkpoint.fingerprint(patient.codec)
    for name, fingerprint in (("own", own), ("other", "0123456789abcdef")):
        row = TokenRow(torch.zeros(2, 5, dtype=torch.long))
        write_shards(tmp_path / name, [row], TokenFormat(fingerprint, 2, 16, 100.0, 8000))
    assert "holds codes of this codec" in check_agreement(patient, str(tmp_path / "own")).told
    found = check_agreement(patient, str(tmp_path / "other"))
    assert "0123456789abcdef" in found.told and own in found.told and "tokenize again" in found.cure
    alone = patient._replace(codec=None)
    assert check_agreement(alone, str(tmp_path / "other")).well


def test_all_stages_of_an_audiolm_learn(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "STEPS", 6)
    an_audiolm().save(tmp_path / "model")
    findings = list(examination(tmp_path / "model", Asked(str(manifest))))
    assert [finding.told.split()[0] for finding in findings if finding.name == "one batch"] == [
        "semantic",
        "coarse",
        "fine",
    ]
    assert all(finding.well for finding in findings if finding.name in ("checkpoint", "agreement", "semantic"))


def test_a_batch_of_a_stage_is_what_its_training_makes(manifest: Path) -> None:
    """Of the first codebooks, with the semantic codes of the same time in front, without repeats, padded in front."""
    model = an_audiolm()
    stage, lm = model.stages["coarse"]
    patient = Patient(Path("x"), "AudioLM", "", model.codec, model.semantic, {"coarse": Model(lm, stage)})
    clips = clips_of(str(manifest)).clips
    batch = batch_of(patient, patient.models["coarse"], clips)
    assert isinstance(stage, Stage) and batch.codes.shape == (3, 2, 30)
    expected = model.codec.encode(clips[0].sound.samples[None])[0, :2]
    assert torch.equal(batch.codes[0], expected) and batch.seconds == pytest.approx(0.6)
    assert batch.prefix is not None
    heard = batch.prefix[0, 0][batch.prefix[0, 0] < 12]
    assert (heard[1:] != heard[:-1]).all() and len(heard)


def test_a_semantic_tokenizer_that_hears_no_difference_is_a_fault(manifest: Path) -> None:
    tokenizer, clips = an_audiolm().semantic, clips_of(str(manifest))
    assert f"of {tokenizer.codebook_size} codes" in check_semantic(tokenizer, clips).told
    tokenizer.centroids.zero_()
    assert "hears no difference" in check_semantic(tokenizer, clips).cure


def test_too_little_memory_leaves_learning_out(
    audiogen_folder: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "free_memory", lambda place: 1000)
    found = by_name(list(examination(audiogen_folder, Asked(str(manifest)))))
    assert "are free: left out" in found["one batch"].told and "fit" not in found


def test_the_cache_is_as_large_as_it_is_said_to_be(audiogen_folder: Path) -> None:
    model = patient_of(audiogen_folder).models["lm"]
    cache = model.lm.new_cache(2, 50)
    said = estimate.cache_of(model, 50)
    assert said == sum(each.numel() * each.element_size() for each in cache.layers)


def test_a_manifest_that_is_none_is_a_fault(audiogen_folder: Path, tmp_path: Path) -> None:
    found = by_name(list(examination(audiogen_folder, Asked(str(tmp_path / "none.jsonl")))))
    assert "no manifest" in found["manifest"].told and "codec" not in found


def test_an_empty_manifest_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match="has no rows"):
        clips_of(str(tmp_path / "empty.jsonl"))


def test_a_sound_is_taken_where_it_is_loudest(tmp_path: Path) -> None:
    samples = torch.zeros(1, 8 * 8000)
    samples[:, 5 * 8000 : 6 * 8000] = 0.5
    audio.write(tmp_path / "late.wav", Sound(samples, 8000))
    write_manifest(tmp_path / "all.jsonl", [Row(str(tmp_path / "late.wav"), 8.0)])
    [clip] = clips_of(str(tmp_path / "all.jsonl")).clips
    assert clip.sound.samples.shape == (1, 16000) and float(clip.sound.samples.square().sum()) == 0.25 * 8000


def test_sounds_need_a_checkpoint() -> None:
    with pytest.raises(ValueError, match="name its folder first"):
        diagnose(None, "some.jsonl")


def test_the_built_in_sound_is_always_the_same() -> None:
    sound = built_in_sound()
    assert torch.equal(sound.samples, built_in_sound().samples) and float(sound.samples.abs().max()) <= 0.5001
    assert isinstance(clips_of(""), Clips) and not clips_of("").own
