"""AudioLM: a sound is its own prompt's and seed's; streams are what is made at once; what does not fit is refused."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.audio import Sound, fit
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.inference import items
from audiolm_kit.inference.audiolm import AudioLM
from audiolm_kit.inference.chain import StageSampling
from audiolm_kit.inference.semantics import track_of
from audiolm_kit.inference.streaming import Row
from audiolm_kit.lm.model import Prefix, StreamLM
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.semantic.tokenizer import SemanticTokenizer
from audiolm_kit.stages import Stage

RATE, HOP = 8000, 160
SETS = ["semantic coarse fine", "semantic acoustic", "semantic coarse"]
MakeAudioLM = Callable[..., AudioLM]


def a_sound(seconds: float, loudness: float = 0.1, rate: int = RATE, channels: int = 1, seed: int = 0) -> Sound:
    """Noise around tones that change every tenth of a second."""
    time = torch.arange(round(seconds * rate)) / rate
    pitch = 300 * 2 ** ((time * 10).floor() % 7 / 3)
    noise = torch.randn(channels, len(time), generator=torch.Generator().manual_seed(seed))
    samples = torch.sin(2 * torch.pi * pitch * time) + 0.3 * noise
    return Sound(samples * loudness / samples.square().mean().sqrt(), rate)


def some_prompts() -> list[Sound]:
    return [a_sound(0.5, seed=1), a_sound(0.7, seed=2), a_sound(0.5, seed=3)]


def whole(chunks: object) -> Tensor:
    return torch.cat([chunk.samples for chunk in chunks], dim=-1)  # type: ignore[attr-defined]


def rms(samples: Tensor) -> float:
    return float(samples.square().mean().sqrt())


# --- laws of all modes


@pytest.mark.parametrize("names", SETS)
def test_a_continuation_begins_with_its_prompts_codes(
    make_audiolm: MakeAudioLM, decoded: list[Tensor], names: str
) -> None:
    model = make_audiolm(names)
    for prompt in some_prompts()[:2]:  # the second one fills a window
        decoded.clear()
        [sound] = model.continue_([prompt], 0.9, seed=2)
        [[codes]], given = decoded, model.codec.encode(prompt.samples[None])[0]
        assert sound.samples.shape == (1, round(0.9 * RATE)) and sound.sample_rate == RATE
        assert codes.shape == (2 if names == "semantic coarse" else 4, 45)
        assert torch.equal(codes[:, : given.shape[1]], given[: len(codes)])


@pytest.mark.parametrize("names", SETS[:2])
def test_an_item_alone_is_the_item_in_a_batch(make_audiolm: MakeAudioLM, names: str) -> None:
    model, prompts, seeds = make_audiolm(names), some_prompts(), [7, 8, 9]
    together = model.continue_(prompts, 0.8, seed=seeds)
    for prompt, seed, sound in zip(prompts, seeds, together, strict=True):
        [alone] = model.continue_([prompt], 0.8, seed=seed)
        assert torch.equal(alone.samples, sound.samples)
    made = model.generate(2, 0.3, seed=7)
    for sound, seed in zip(made, seeds, strict=False):
        assert torch.equal(model.generate(1, 0.3, seed=seed)[0].samples, sound.samples)
    assert not torch.equal(made[0].samples, made[1].samples)


def test_prompts_of_unequal_length_go_side_by_side(audiolm: AudioLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a window; what is longer goes with its like."""
    batches: list[list[Row]] = []
    plain = audiolm.chain.blocks
    monkeypatch.setattr(
        audiolm.chain, "blocks", lambda request: (batches.append(list(request.rows)), plain(request))[1]
    )
    prompts = [a_sound(seconds) for seconds in (0.1, 0.3, 0.2, 0.1)]
    audiolm.continue_(prompts, 0.4)
    assert batches == [[Row(5, 20), Row(5, 20), Row(10, 20), Row(15, 20)]]
    batches.clear()
    sounds = audiolm.continue_(prompts, [0.3, 0.4, 0.35, 0.2])
    assert batches == [[Row(5, 10), Row(5, 15), Row(10, 18), Row(15, 20)]]
    assert [each.samples.shape[1] for each in sounds] == [2400, 3200, 2800, 1600]
    batches.clear()
    audiolm.continue_(prompts, 0.9)
    assert batches == [[Row(5, 45), Row(5, 45)], [Row(15, 45)], [Row(10, 45)]]


def test_nothing_depends_on_how_many_items_go_at_once(audiolm: AudioLM, monkeypatch: pytest.MonkeyPatch) -> None:
    before = audiolm.continue_(some_prompts(), 0.8), audiolm.resynthesize(some_prompts()[:2])
    monkeypatch.setattr(items, "BATCH", 1)
    monkeypatch.setattr("audiolm_kit.inference.chain.BATCH", 2)
    after = audiolm.continue_(some_prompts(), 0.8), audiolm.resynthesize(some_prompts()[:2])
    for one, other in zip(itertools.chain(*before), itertools.chain(*after), strict=True):
        assert torch.equal(one.samples, other.samples)


@pytest.mark.parametrize(("names", "window"), [(SETS[0], None), (SETS[0], 0.1), (SETS[1], None), (SETS[2], 0.2)])
def test_a_stream_is_the_sound_made_at_once(make_audiolm: MakeAudioLM, names: str, window: float | None) -> None:
    model = make_audiolm(names)
    [made], [continued] = model.generate(1, 0.4, seed=5), model.continue_([a_sound(0.3)], 0.7, seed=5, window=window)
    assert torch.equal(whole(model.stream(None, 0.4, seed=5)), made.samples)
    pieces = list(model.stream(a_sound(0.3), 0.7, seed=5, window=window, chunk=0.25))
    assert [piece.samples.shape[1] for piece in pieces] == [2000, 2000, 1600]
    assert torch.equal(whole(pieces), continued.samples)


def test_a_stream_without_end_goes_on(audiolm: AudioLM) -> None:
    taken = list(itertools.islice(audiolm.stream(None, math.inf, chunk=0.4), 3))
    assert sum(piece.samples.shape[1] for piece in taken) == 3 * 3200


def test_the_same_seed_makes_the_same_sound(audiolm: AudioLM) -> None:
    for make in (
        lambda seed: audiolm.generate(1, 0.2, seed=seed),
        lambda seed: audiolm.resynthesize([a_sound(0.3)], seed=seed),
    ):
        [one], [again], [other] = make(1), make(1), make(2)
        assert torch.equal(one.samples, again.samples) and not torch.equal(one.samples, other.samples)


def test_with_repeats_kept_all_modes_work(make_audiolm: MakeAudioLM) -> None:
    model = make_audiolm("semantic coarse fine", deduplicated=False)
    assert model.steps_for(1.0)["semantic"] == 25  # one for each semantic frame
    [sound] = model.continue_([a_sound(0.5)], 0.8)
    assert torch.equal(whole(model.stream(a_sound(0.5), 0.8)), sound.samples)
    assert model.resynthesize([a_sound(0.4)])[0].samples.shape == (1, 3200)


# --- continue_


@pytest.mark.parametrize("peak", [0.0, 0.7])
@pytest.mark.parametrize("loudness", [0.2, 0.002])
def test_the_beginning_is_as_loud_as_the_prompt(make_audiolm: MakeAudioLM, loudness: float, peak: float) -> None:
    prompt = a_sound(0.2, loudness)
    [sound] = make_audiolm(peak=peak).continue_([prompt], 0.4)
    assert float(sound.samples.abs().max()) <= 1
    assert rms(sound.samples[:, :1600]) == pytest.approx(rms(prompt.samples), rel=0.03)


def test_what_does_not_fill_a_frame_is_left_out(audiolm: AudioLM) -> None:
    longer = Sound(torch.cat([a_sound(0.2).samples, torch.zeros(1, HOP - 1)], 1), RATE)
    [sound], [same] = (audiolm.continue_([prompt], 0.5) for prompt in (longer, a_sound(0.2)))
    assert torch.equal(sound.samples, same.samples)


def test_prompts_of_any_rate_and_of_both_channels_are_taken(audiolm: AudioLM) -> None:
    prompt = a_sound(0.3, rate=16000, channels=2)
    [sound], [same] = (audiolm.continue_([each], 0.5) for each in (prompt, fit(prompt, RATE, 1)))
    assert torch.equal(sound.samples, same.samples)


def test_what_the_prompt_says_matters_to_what_follows(audiolm: AudioLM, monkeypatch: pytest.MonkeyPatch) -> None:
    [plain] = audiolm.continue_([a_sound(0.4)], 0.8)
    monkeypatch.setattr(type(audiolm.semantic), "encode", lambda self, x: torch.zeros(1, 1, 10, dtype=torch.long))
    [other] = audiolm.continue_([a_sound(0.4)], 0.8)
    assert not torch.allclose(plain.samples[:, 4000:], other.samples[:, 4000:], atol=1e-3)


# --- resynthesize


@pytest.mark.parametrize("seconds", [0.013, 0.77])
def test_what_is_said_anew_keeps_its_length(audiolm: AudioLM, seconds: float) -> None:
    [sound] = audiolm.resynthesize([a_sound(seconds)])
    assert sound.samples.shape == a_sound(seconds).samples.shape
    [resampled] = audiolm.resynthesize([a_sound(seconds, rate=16000)])
    assert resampled.samples.shape == (1, round(seconds * RATE))


def test_all_acoustic_codes_are_new_and_depend_on_what_is_said_alone(audiolm: AudioLM, decoded: list[Tensor]) -> None:
    sounds = [a_sound(0.3), a_sound(0.5), Sound(a_sound(0.3).samples * 0.5, RATE)]
    together = audiolm.resynthesize(sounds, seed=[3, 4, 3])
    codes = [row for batch in decoded for row in batch]
    for sound, seed, made in zip(sounds, [3, 4, 3], together, strict=True):
        [alone] = audiolm.resynthesize([sound], seed=seed)
        assert torch.equal(alone.samples, made.samples)
    said = [track_of(audiolm.semantic, sound).codes for sound in sounds]
    assert torch.equal(said[0], said[2]) and torch.equal(codes[0], codes[2])  # the tokenizer hears no level
    own = audiolm.codec.encode(sounds[0].samples[None])[0]
    assert float((codes[0] == own).double().mean()) < 0.5


def test_a_voice_stands_in_front_and_is_cut_off(audiolm: AudioLM, decoded: list[Tensor]) -> None:
    [made] = audiolm.resynthesize([a_sound(0.5)], voices=[a_sound(0.3, seed=9)])
    assert made.samples.shape == (1, 4000)
    [[codes]], voice = decoded, audiolm.codec.encode(a_sound(0.3, seed=9).samples[None])[0]
    assert codes.shape == (4, 40) and torch.equal(codes[:, :15], voice)
    with pytest.raises(ValueError, match="1 voices for 2 sounds"):
        audiolm.resynthesize([a_sound(0.5)] * 2, voices=[a_sound(0.3)])


# --- likelihood


@torch.no_grad()
def test_the_likelihood_of_a_recording_is_that_of_its_codes(audiolm: AudioLM) -> None:
    sounds = [a_sound(0.9), a_sound(0.3, seed=5)]
    for sound, nats, per_code in zip(
        sounds, audiolm.log_likelihood(sounds), audiolm.log_likelihood(sounds, normalise=True), strict=True
    ):
        codes = audiolm.semantic.encode(sound.samples[None])[0, 0].tolist()
        codes = [code for code, _ in itertools.groupby(codes)]
        logits = audiolm.stages["semantic"][1](torch.tensor([[codes]]))[0, 0].log_softmax(-1)
        wanted = sum(float(logits[place, code]) for place, code in enumerate(codes))
        assert nats == pytest.approx(wanted, rel=1e-5) and per_code == pytest.approx(wanted / len(codes), rel=1e-5)


# --- refusals


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda model: model.generate(0, 1.0), "count is 0: ask for at least 1"),
        (lambda model: model.generate(1, 0.0), "seconds is 0.0: ask for a positive"),
        (lambda model: model.generate(1, math.inf), "seconds is inf"),
        (lambda model: model.generate(2, 1.0, seed=[1]), "1 seeds for 2 items"),
        (lambda model: model.generate(1, 1.0, window=0.2, overlap=0.2), "a window must be longer than what it repeats"),
        (lambda model: model.continue_(a_sound(0.1), 1.0), "prompts is a single Sound"),
        (lambda model: model.continue_([a_sound(0.5)], 0.5), "ask for more seconds"),
        (lambda model: model.continue_([a_sound(0.01)], 0.5), "give at least one frame"),
        (lambda model: model.stream(a_sound(0.5), 0.5), "ask for more seconds"),
        (lambda model: model.resynthesize([]), "sounds is empty"),
        (lambda model: model.resynthesize([Sound(torch.full((1, 800), torch.nan), RATE)]), "holds NaN"),
        (
            lambda model: model.generate(1, 1.0, StageSampling(fine=Sampling((1.0,) * 4, guidance_scale=1.0))),
            "4 values",
        ),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    audiolm: AudioLM, call: Callable[[AudioLM], object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        call(audiolm)


def test_other_sets_of_stages_are_refused(audiolm: AudioLM, make_stage_lm: Callable[..., StreamLM]) -> None:
    stages = dict(audiolm.stages)
    fine, lm = stages["fine"]

    def refused(told: str, **changed: tuple[Stage, StreamLM] | None) -> None:
        given = {name: part for name, part in {**stages, **changed}.items() if part}
        with pytest.raises(ValueError, match=told):
            AudioLM(audiolm.semantic, audiolm.codec, given)  # type: ignore[arg-type]

    refused(r"stages are semantic \+ fine: AudioLM is made of semantic \+ coarse \+ fine; semantic \+ ac", coarse=None)
    refused("stages are coarse", semantic=None)
    refused("stage fine makes codebooks .3, 4. of .0, 2., stage coarse .0, 2.: fine must begin where",
            fine=(dataclasses.replace(fine, codebooks=(3, 4)), make_stage_lm(1, 16, Prefix(2, 16))))  # fmt: skip
    refused("the model of stage fine makes 1 codebooks of 16, the stage 2 to 4 of the codec's 4 of 16",
            fine=(fine, make_stage_lm(1, 16, Prefix(2, 16))))  # fmt: skip
    refused("the model of stage fine reads 1 codebooks of 16", fine=(fine, make_stage_lm(2, 16, Prefix(1, 16))))
    semantic, semantic_lm = stages["semantic"]
    refused("codes_per_second of stage semantic is 0",
            semantic=(dataclasses.replace(semantic, codes_per_second=0.0), semantic_lm))  # fmt: skip
    coarse, coarse_lm = stages["coarse"]
    refused("stage coarse reads semantic codes with their repeats",
            coarse=(dataclasses.replace(coarse, deduplicated=False), coarse_lm))  # fmt: skip


# --- checkpoints


def stage_folders(model: AudioLM, folder: Path) -> list[Path]:
    """As `fit` exports them."""
    made = []
    for name, (stage, lm) in model.stages.items():
        parts: dict[str, torch.nn.Module] = {"lm": lm.float()}
        if "semantic" in (stage.source, stage.prefix):
            parts["semantic"] = model.semantic
        if stage.source == "codec":
            parts["codec"] = model.codec
        checkpoint.save_bundle(folder / name, "AudioLMStage", parts, {}, {"stage": dataclasses.asdict(stage)})
        made.append(folder / name)
    return made


@pytest.mark.parametrize("names", SETS)
def test_stages_are_put_together_saved_and_opened(make_audiolm: MakeAudioLM, tmp_path: Path, names: str) -> None:
    model = make_audiolm(names)
    assembled = AudioLM.assemble(stage_folders(model, tmp_path)[::-1])
    assert {name: stage for name, (stage, _) in assembled.stages.items()} == {
        name: stage for name, (stage, _) in model.stages.items()
    }
    assembled.save(tmp_path / "whole")
    opened = AudioLM.load(tmp_path / "whole")
    assert opened.fingerprints == assembled.fingerprints
    for make in (lambda each: each.generate(1, 0.2), lambda each: each.continue_([a_sound(0.2)], 0.3)):
        [one], [other] = make(assembled), make(opened)
        assert torch.equal(one.samples, other.samples)
    opened.save(tmp_path / "whole")  # over itself


def test_stages_of_two_tokenizers_are_refused(
    make_audiolm: MakeAudioLM,
    make_codec: Callable[..., NeuralCodec],
    make_semantic: Callable[..., SemanticTokenizer],
    tmp_path: Path,
) -> None:
    model = make_audiolm()
    semantic, coarse, fine = stage_folders(model, tmp_path / "one")
    model.codec, model.semantic = make_codec(seed=5), make_semantic(seed=5)
    _, other_coarse, other_fine = stage_folders(model, tmp_path / "two")
    with pytest.raises(ValueError, match=f"codec part of {other_fine} is another one than that of {coarse} "):
        AudioLM.assemble([semantic, coarse, other_fine])
    with pytest.raises(ValueError, match=f"semantic part of {other_coarse} is another one than that of {semantic} "):
        AudioLM.assemble([semantic, other_coarse, other_fine])
    with pytest.raises(ValueError, match=f"{coarse} and {other_coarse} both hold a coarse stage"):
        AudioLM.assemble([semantic, coarse, other_coarse])
    with pytest.raises(ValueError, match=rf"stages are semantic \+ fine in {semantic}, {fine}: AudioLM is made of"):
        AudioLM.assemble([semantic, fine])
    with pytest.raises(ValueError, match="give a list"):
        AudioLM.assemble(str(semantic))
    with pytest.raises(FileNotFoundError, match="no checkpoint folder at"):
        AudioLM.assemble([tmp_path / "none"])
    checkpoint.save(make_codec(seed=5), coarse / "codec")
    with pytest.raises(ValueError, match=f"{coarse / 'codec'} is not what the checkpoint was made of"):
        AudioLM.assemble([semantic, coarse, fine])


def test_a_damaged_model_is_refused(
    make_audiolm: MakeAudioLM, make_codec: Callable[..., NeuralCodec], tmp_path: Path
) -> None:
    model = make_audiolm()
    for _, lm in model.stages.values():
        lm.float()
    model.save(tmp_path / "model")
    stored = checkpoint.read_json(tmp_path / "model" / "config.json")
    checkpoint.write_json(tmp_path / "model" / "config.json", {**stored, "stages": None})
    with pytest.raises(ValueError, match="stages is None, wanted one for each"):
        AudioLM.load(tmp_path / "model")
    checkpoint.write_json(tmp_path / "model" / "config.json", stored)
    checkpoint.save(make_codec(seed=5), tmp_path / "model" / "codec")
    with pytest.raises(ValueError, match="codec is not what the checkpoint was made of"):
        AudioLM.load(tmp_path / "model")


def test_the_note_of_a_sound_says_how_to_make_it_again(audiolm: AudioLM, tmp_path: Path) -> None:
    about = audiolm.sidecar(2.0, StageSampling.of(fine=0.1), 3, "prompt.wav", window=0.5)
    checkpoint.write_json(tmp_path / "note.json", about)
    assert about["sampling"]["fine"]["temperature"] == 0.1 and "acoustic" not in about["sampling"]
    assert set(about["fingerprints"]) == {"semantic", "codec", "stages/semantic", "stages/coarse", "stages/fine"}
    assert (about["prompt"], about["seed"], about["window"], about["overlap"]) == ("prompt.wav", 3, 0.5, None)
