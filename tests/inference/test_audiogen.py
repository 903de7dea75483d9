"""AudioGen: an item's sound is its own text's, prompt's and seed's; continuations keep their prompts; checkpoints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiolm_kit import checkpoint
from audiolm_kit.audio import Sound, fit
from audiolm_kit.codec.convnext import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.conditioning import TextConditioner, TextConfig
from audiolm_kit.inference import items, streaming
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.text import Vocabulary, train
from audiolm_kit.transformer import TransformerConfig

RATE, HOP = 8000, 160
TEXTS = ["a bell rings", "", "rain falls on a high and wide tin roof", "a low bell"]
SAMPLING = Sampling(top_k=8)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return train(TEXTS, tmp_path_factory.mktemp("text") / "text.model", size=40)


def a_codec(channels: int = 1, peak: float = 0.0) -> NeuralCodec:
    """Random, of fixed seed, 50 frames a second; its sounds reach about a tenth of full scale."""
    torch.manual_seed(0)
    body = ConvNeXtConfig(dim=8, width=16, encoder_layers=1, decoder_layers=1, hop=80, fft_size=160, frames_per_code=2)
    quantizer = QuantizerConfig(num_codebooks=2, codebook_size=16, dim=8)
    return NeuralCodec(
        CodecConfig(sample_rate=RATE, channels=channels, peak=peak, convnext=body, quantizer=quantizer)
    ).eval()


def a_model(vocabulary: Vocabulary, codec: NeuralCodec | None = None) -> AudioGen:
    """Random, of fixed seed; the language model in float64, where no rounding decides about a code."""
    torch.manual_seed(1)
    text = TextConfig(kind="small", dim=8, layers=1, heads=2, pieces=vocabulary.size)
    transformer = TransformerConfig(dim=16, heads=2, layers=2, cross_attention=True)
    lm = StreamLM(LMConfig(num_codebooks=2, codebook_size=16, transformer=transformer, text=text))
    for weight in lm.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return AudioGen(codec or a_codec(), lm.double(), TextConditioner(text, vocabulary))


@pytest.fixture(scope="module")
def model(vocabulary: Vocabulary) -> AudioGen:
    return a_model(vocabulary)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The codes [B, K, T] of every batch of sounds that is decoded."""
    seen: list[Tensor] = []
    decode = streaming.decode

    def watched(codec: NeuralCodec, codes: Tensor) -> Tensor:
        seen.append(codes)
        return decode(codec, codes)

    monkeypatch.setattr(streaming, "decode", watched)
    return seen


def codes_of(decoded: list[Tensor]) -> list[Tensor]:
    """One [K, T] for each item, in order; the list is emptied."""
    codes = [row for batch in decoded for row in batch]
    decoded.clear()
    return codes


def a_tone(seconds: float, loudness: float = 0.1, rate: int = RATE, channels: int = 1, seed: int = 0) -> Sound:
    """Noise around a tone: no two frames alike."""
    time = torch.arange(round(seconds * rate)) / rate
    noise = torch.randn(channels, len(time), generator=torch.Generator().manual_seed(seed))
    samples = torch.sin(2 * torch.pi * 440 * time) + 0.3 * noise
    return Sound(samples * loudness / samples.square().mean().sqrt(), rate)


def rms(samples: Tensor) -> float:
    return float(samples.square().mean().sqrt())


def a_batch_of_prompts() -> list[Sound]:
    return [a_tone(0.1, seed=1), a_tone(0.06, seed=2), a_tone(0.1, seed=3), a_tone(0.2, seed=4)]


# --- generate


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_an_item_depends_on_its_text_and_seed_alone(
    model: AudioGen, decoded: list[Tensor], guidance_scale: float
) -> None:
    sampling = dataclasses.replace(SAMPLING, guidance_scale=guidance_scale)
    model.generate(TEXTS, 0.2, sampling, seed=[7, 8, 9, 10])
    together = codes_of(decoded)
    for text, seed in zip(TEXTS, [7, 8, 9, 10], strict=True):
        model.generate([text], 0.2, sampling, seed)
    alone = codes_of(decoded)
    model.generate(TEXTS[::-1], 0.2, sampling, seed=[10, 9, 8, 7])
    backwards = codes_of(decoded)[::-1]
    assert torch.equal(torch.stack(alone), torch.stack(together))
    assert torch.equal(torch.stack(backwards), torch.stack(together))
    assert len({tuple(codes.flatten().tolist()) for codes in together}) == len(TEXTS)


def test_nothing_depends_on_how_many_items_go_at_once(
    model: AudioGen, decoded: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    sounds = model.generate(TEXTS, 0.1, SAMPLING, seed=3)
    continued = model.continue_(a_batch_of_prompts(), 0.3, TEXTS, SAMPLING, seed=3)
    whole = codes_of(decoded)
    monkeypatch.setattr(items, "BATCH", 1)
    in_pieces = model.generate(TEXTS, 0.1, SAMPLING, seed=3)
    in_pieces += model.continue_(a_batch_of_prompts(), 0.3, TEXTS, SAMPLING, seed=3)
    assert [len(batch) for batch in decoded] == [1] * 8
    assert all(torch.equal(a, b) for a, b in zip(whole, codes_of(decoded), strict=True))
    for one, other in zip(sounds + continued, in_pieces, strict=True):
        torch.testing.assert_close(one.samples, other.samples)


def test_one_seed_counts_up_and_several_are_each_items_own(model: AudioGen, decoded: list[Tensor]) -> None:
    model.generate(["a bell"] * 3, 0.1, SAMPLING, seed=5)
    counted = codes_of(decoded)
    model.generate(["a bell"] * 3, 0.1, SAMPLING, seed=[5, 6, 7])
    assert all(torch.equal(a, b) for a, b in zip(counted, codes_of(decoded), strict=True))
    model.generate(["a bell"] * 2, 0.1, SAMPLING, seed=range(6, 8))
    assert all(torch.equal(a, b) for a, b in zip(counted[1:], codes_of(decoded), strict=True))
    model.generate(["a bell"], 0.1, SAMPLING, seed=torch.tensor(6))
    assert torch.equal(counted[1], codes_of(decoded)[0])
    assert not torch.equal(counted[0], counted[1])


def test_empty_texts_are_unconditional_at_any_guidance(model: AudioGen, decoded: list[Tensor]) -> None:
    for text, scale in (("", 1.0), ("", 7.0), (" \n", 3.0)):
        model.generate([text], 0.2, dataclasses.replace(SAMPLING, guidance_scale=scale))
    model.generate(["", "rain"], 0.2, SAMPLING)  # among others with a text
    plain, guided, blank, among, rain = codes_of(decoded)
    assert torch.equal(plain, guided) and torch.equal(plain, blank) and torch.equal(plain, among)
    model.generate(["rain"], 0.2, SAMPLING)
    assert not torch.equal(codes_of(decoded)[0], plain)
    assert rain.shape == plain.shape


def test_a_model_without_text_makes_sound_and_refuses_texts() -> None:
    transformer = TransformerConfig(dim=16, heads=2, layers=1)
    model = AudioGen(a_codec(), StreamLM(LMConfig(num_codebooks=2, codebook_size=16, transformer=transformer)))
    [sound] = model.generate([""], 0.1)
    assert sound.samples.shape == (1, 800)
    with pytest.raises(ValueError, match="trained without captions"):
        model.generate(["a bell"], 0.1)


@pytest.mark.parametrize("seconds", [0.0001, 0.02, 0.14, 0.28, 0.2801, 0.56])
def test_sounds_are_as_long_as_asked_for_and_no_frame_is_made_in_vain(
    model: AudioGen, decoded: list[Tensor], seconds: float
) -> None:
    [sound] = model.generate(["a bell"], seconds, SAMPLING)
    length = max(1, round(seconds * RATE))
    assert sound.samples.shape == (1, length) and sound.sample_rate == RATE
    assert codes_of(decoded)[0].shape[1] == -(-length // HOP)  # 0.28 * 50 is 14.000000000000002


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"texts": []}, "texts is empty: give a list"),
        ({"texts": "a bell"}, "texts is a single caption: give a list"),
        ({"seconds": 0}, "seconds is 0: ask for a positive number"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seconds": float("inf")}, "seconds is inf"),
        ({"seed": [1, 2]}, "2 seeds for 1 items"),
        ({"seed": 2**64}, "seeds are 18446744073709551616 to"),
    ],
)
def test_requests_that_make_no_sense_are_refused(model: AudioGen, arguments: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("*", r"\*")):
        model.generate(**{"texts": ["a bell"], "seconds": 0.1, **arguments})  # type: ignore[arg-type]


# --- away from a negative text


def test_an_empty_negative_text_is_none(model: AudioGen) -> None:
    plain = model.generate(TEXTS, 0.2, SAMPLING)
    for negative in ("", " ", [""] * len(TEXTS)):
        for one, other in zip(plain, model.generate(TEXTS, 0.2, SAMPLING, negative=negative), strict=True):
            assert torch.equal(one.samples, other.samples)


def test_guidance_leads_away_from_the_negative_text(model: AudioGen, decoded: list[Tensor]) -> None:
    model.generate(["rain"], 0.2, SAMPLING)
    model.generate(["rain"], 0.2, SAMPLING, negative="a bell")
    model.generate([""], 0.2, SAMPLING)
    model.generate([""], 0.2, SAMPLING, negative="a bell")
    rain, without_bell, plain, plain_without_bell = codes_of(decoded)
    assert not torch.equal(rain, without_bell) and not torch.equal(plain, plain_without_bell)
    model.generate(["rain"], 0.2, SAMPLING, negative="rain")  # from rain towards rain leads nowhere
    unguided = dataclasses.replace(SAMPLING, guidance_scale=1.0)
    model.generate(["rain"], 0.2, unguided)
    model.generate(["rain"], 0.2, unguided, negative="a bell")
    towards_itself, once, twice = codes_of(decoded)
    assert torch.equal(towards_itself, once) and torch.equal(once, twice)


def test_an_items_negative_text_is_its_own(model: AudioGen, decoded: list[Tensor]) -> None:
    negatives = ["a low bell", "", "rain", "a bell"]
    model.generate(TEXTS, 0.2, SAMPLING, seed=3, negative=negatives)
    together = codes_of(decoded)
    for i, (text, negative) in enumerate(zip(TEXTS, negatives, strict=True)):
        model.generate([text], 0.2, SAMPLING, seed=3 + i, negative=negative)
        assert torch.equal(codes_of(decoded)[0], together[i])
    model.generate(TEXTS, 0.2, SAMPLING, seed=3, negative="a bell")
    assert torch.equal(codes_of(decoded)[3], together[3])
    with pytest.raises(ValueError, match="2 negative texts for 4 items"):
        model.generate(TEXTS, 0.2, negative=["rain", "rain"])


# --- best of n


def middle(sounds: list[Sound], texts: list[str]) -> Tensor:
    """A scorer that likes a certain loudness, and longer texts."""
    levels = torch.stack([sound.samples.square().mean().sqrt() for sound in sounds])
    return -(levels - 0.1).abs() + torch.tensor([len(text) for text in texts])


def test_the_best_candidate_is_kept_and_can_be_made_again_from_its_seed(model: AudioGen) -> None:
    negatives = ["", "rain", "", "a bell"]
    choices = model.best_of(TEXTS, 0.2, SAMPLING, seed=3, candidates=5, scorer=middle, negative=negatives)
    sounds = model.generate(TEXTS, 0.2, SAMPLING, seed=3, candidates=5, scorer=middle, negative=negatives)
    for i, (choice, sound) in enumerate(zip(choices, sounds, strict=True)):
        assert torch.equal(choice.sound.samples, sound.samples)
        assert len(choice.scores) == 5 and choice.score == max(choice.scores)
        [again] = model.generate([TEXTS[i]], 0.2, SAMPLING, choice.seed, negative=negatives[i])
        torch.testing.assert_close(again.samples, sound.samples)
    assert any(choice.seed != 3 + i for i, choice in enumerate(choices))


def test_one_candidate_is_the_plain_sound(model: AudioGen) -> None:
    plain = model.generate(TEXTS, 0.2, SAMPLING, seed=3)
    judged = model.generate(TEXTS, 0.2, SAMPLING, seed=3, candidates=1, scorer=middle)
    assert all(torch.equal(one.samples, other.samples) for one, other in zip(plain, judged, strict=True))


def test_candidates_need_a_judge_and_one_text(model: AudioGen) -> None:
    with pytest.raises(ValueError, match="candidates is 2, but nothing judges them: give a scorer"):
        model.generate(["rain"], 0.2, candidates=2)
    with pytest.raises(ValueError, match="a timeline has several"):
        model.generate([["0-0.2: rain"]], candidates=2, scorer=middle)


# --- continue_


def test_a_continuation_begins_with_its_prompts_codes(model: AudioGen, decoded: list[Tensor]) -> None:
    for prompt in a_batch_of_prompts():
        [sound] = model.continue_([prompt], 0.4, ["a bell"], SAMPLING, seed=2)
        [codes], given = codes_of(decoded), model.codec.encode(prompt.samples[None])[0]
        assert sound.samples.shape == (1, round(0.4 * RATE))
        assert codes.shape == (2, 20) and torch.equal(codes[:, : given.shape[1]], given)
        assert len(given.unique()) > 2


def test_a_continuation_depends_on_its_own_prompt_text_and_seed_alone(model: AudioGen) -> None:
    prompts = a_batch_of_prompts()
    together = model.continue_(prompts, 0.4, TEXTS, SAMPLING, seed=2)
    for i, prompt in enumerate(prompts):
        [alone] = model.continue_([prompt], 0.4, [TEXTS[i]], SAMPLING, seed=2 + i)
        torch.testing.assert_close(alone.samples, together[i].samples)
        [another] = model.continue_([prompt], 0.4, [TEXTS[i]], SAMPLING, seed=12 + i)
        assert not torch.allclose(another.samples, alone.samples, atol=1e-3)


def test_no_texts_are_empty_texts(model: AudioGen) -> None:
    [without] = model.continue_([a_tone(0.1)], 0.3, sampling=SAMPLING)
    [empty] = model.continue_([a_tone(0.1)], 0.3, [""], SAMPLING)
    assert torch.equal(without.samples, empty.samples)


@pytest.mark.parametrize("peak", [0.0, 0.7])
@pytest.mark.parametrize("loudness", [0.2, 0.02, 0.002])
def test_the_beginning_is_as_loud_as_the_prompt(vocabulary: Vocabulary, loudness: float, peak: float) -> None:
    prompt = a_tone(0.2, loudness)
    [sound] = a_model(vocabulary, a_codec(peak=peak)).continue_([prompt], 0.4, sampling=SAMPLING)
    assert float(sound.samples.abs().max()) <= 1
    followed = rms(sound.samples[:, : prompt.samples.shape[1]])
    assert followed == pytest.approx(rms(prompt.samples), rel=0.03)  # its last frames sound on into the new ones


def test_a_continuation_may_follow_its_prompt_more_than_it_is_wont_to(model: AudioGen) -> None:
    [plain] = model.continue_([a_tone(0.2)], 0.4, ["a bell"], SAMPLING)
    sampling = dataclasses.replace(SAMPLING, prompt_guidance_scale=4.0)
    [closer] = model.continue_([a_tone(0.2)], 0.4, ["a bell"], sampling)
    assert not torch.allclose(plain.samples[:, 1600:], closer.samples[:, 1600:], atol=1e-3)
    assert torch.equal(plain.samples[:, :800], closer.samples[:, :800])


def test_no_sample_passes_full_scale(vocabulary: Vocabulary) -> None:
    codec = a_codec()
    codec.decoder.head.project.bias.data[:40] += 2.0  # type: ignore[union-attr, operator]
    model = a_model(vocabulary, codec)
    [sound] = model.generate(["rain"], 0.3, SAMPLING)
    assert float(sound.samples.abs().max()) == 1
    [sound] = model.continue_([a_tone(0.2, 0.9)], 0.4, sampling=SAMPLING)
    assert float(sound.samples.abs().max()) <= 1


def test_a_silent_prompt_does_not_silence_its_continuation(model: AudioGen) -> None:
    [sound] = model.continue_([Sound(torch.zeros(1, 800), RATE)], 0.3, sampling=SAMPLING)
    assert rms(sound.samples[:, 800:]) > 1e-4


@pytest.mark.parametrize(("rate", "channels"), [(RATE, 2), (16000, 1), (11025, 2), (44100, 1)])
def test_prompts_of_any_rate_and_of_both_channels_are_taken(model: AudioGen, rate: int, channels: int) -> None:
    prompt = a_tone(0.2, rate=rate, channels=channels)
    [sound] = model.continue_([prompt], 0.4, sampling=SAMPLING)
    [same] = model.continue_([fit(prompt, RATE, 1)], 0.4, sampling=SAMPLING)
    assert sound.samples.shape == (1, round(0.4 * RATE))
    torch.testing.assert_close(sound.samples, same.samples)


def test_a_stereo_codec_takes_a_mono_prompt(vocabulary: Vocabulary) -> None:
    [sound] = a_model(vocabulary, a_codec(channels=2)).continue_([a_tone(0.1)], 0.2, sampling=SAMPLING)
    assert sound.samples.shape == (2, 1600)


def test_what_does_not_fill_a_frame_is_left_out(model: AudioGen) -> None:
    whole = a_tone(0.1)
    longer = Sound(torch.cat([whole.samples, torch.zeros(1, HOP - 1)], 1), RATE)
    [sound], [same] = (model.continue_([prompt], 0.3, sampling=SAMPLING) for prompt in (longer, whole))
    assert torch.equal(sound.samples, same.samples)


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        (a_tone(0.3), "the prompt is 0.300 s long, 0.300 s were asked for in all: ask for more seconds"),
        (a_tone(0.301), "ask for more seconds"),
        (a_tone(0.01), "the prompt is 0.010 s long, a frame of the codec 0.020 s: give at least one frame"),
        (Sound(torch.zeros(1, 0), RATE), "the prompt is empty"),
        (Sound(torch.full((1, 800), torch.nan), RATE), "the prompt holds NaN"),
        (Sound(torch.full((1, 800), torch.inf), 16000), "the prompt holds NaN or infinite"),
    ],
)
def test_prompts_that_cannot_be_continued_are_refused(model: AudioGen, prompt: Sound, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        model.continue_([a_tone(0.1), prompt], 0.3)


def test_lone_and_missing_prompts_are_refused(model: AudioGen) -> None:
    with pytest.raises(ValueError, match="prompts is a single Sound"):
        model.continue_(a_tone(0.1), 0.3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="prompts is empty"):
        model.continue_([], 0.3)
    with pytest.raises(ValueError, match="1 texts for 2 prompts"):
        model.continue_([a_tone(0.1)] * 2, 0.3, ["a bell"])


# --- checkpoints


@pytest.fixture
def saved(vocabulary: Vocabulary, tmp_path: Path) -> Path:
    model = a_model(vocabulary)
    model.lm.float()
    model.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_makes_the_same_sounds_after_loading(vocabulary: Vocabulary, tmp_path: Path) -> None:
    model = a_model(vocabulary)
    model.lm.float()
    model.save(tmp_path / "model")
    loaded = AudioGen.load(tmp_path / "model")
    for one, other in zip(model.generate(TEXTS, 0.2), loaded.generate(TEXTS, 0.2), strict=True):
        assert torch.equal(one.samples, other.samples)
    [one], [other] = (each.continue_([a_tone(0.1)], 0.2, ["a bell"]) for each in (model, loaded))
    assert torch.equal(one.samples, other.samples)
    loaded.save(tmp_path / "model")  # over itself
    assert AudioGen.load(tmp_path / "model").fingerprints == loaded.fingerprints
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    parts = {f"model/{part}/{name}" for part in ("codec", "lm") for name in ("config.json", "model.safetensors")}
    assert names == {"model/config.json", "model/text.model", *parts}


def test_a_model_in_half_precision_can_be_saved_and_loaded(vocabulary: Vocabulary, tmp_path: Path) -> None:
    model = a_model(vocabulary)
    model.lm.half()
    model.save(tmp_path / "model")
    loaded = AudioGen.load(tmp_path / "model")
    assert torch.equal(loaded.lm.heads.weight, model.lm.heads.weight.float())


def test_saving_replaces_no_folder_but_a_checkpoint(model: AudioGen, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is no checkpoint"):
        model.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("part", ["codec", "lm", "text.model"])
def test_parts_of_another_model_are_refused(saved: Path, part: str) -> None:
    if part == "text.model":
        train(["other words", "make other pieces"], saved / "text.model", size=24)
    else:
        kind = NeuralCodec if part == "codec" else StreamLM
        other = checkpoint.load(kind, saved / part)
        next(iter(other.parameters())).data.mul_(2)
        checkpoint.save(other, saved / part)
    with pytest.raises(ValueError, match=f"{part} is not what the checkpoint was made of"):
        AudioGen.load(saved)


def test_parts_that_do_not_fit_each_other_are_refused(vocabulary: Vocabulary) -> None:
    lm = StreamLM(LMConfig(num_codebooks=3, codebook_size=16, transformer=TransformerConfig(dim=8, heads=1, layers=1)))
    with pytest.raises(ValueError, match="the model is for 3 codebooks of 16, the codec has 2 of 16"):
        AudioGen(a_codec(), lm)
    with pytest.raises(ValueError, match="the model reads text of kind 'small'"):
        AudioGen(a_codec(), a_model(vocabulary).lm)


def test_the_sidecar_says_all_that_it_takes_to_make_the_sound_again(saved: Path) -> None:
    model = AudioGen.load(saved)
    sounds = model.generate(TEXTS, 0.2, SAMPLING, seed=4)
    told = json.loads(json.dumps(model.sidecar(TEXTS[2], 0.2, SAMPLING, seed=6)))
    sampling = Sampling(**told["sampling"])
    [again] = AudioGen.load(saved).generate([told["text"]], told["seconds"], sampling, told["seed"])
    torch.testing.assert_close(again.samples, sounds[2].samples)
    assert (told["prompt"], told["negative"], told["window"], told["overlap"]) == ("", "", None, None)
    assert set(told["fingerprints"]) == {"codec", "lm", "text.model"}
    assert told["sample_rate"] == RATE and told["version"]


def test_the_sidecar_of_a_long_sound_away_from_a_text_makes_it_again(model: AudioGen) -> None:
    lines = ["0-0.1: rain", "0.1-0.3: a bell"]
    making = {"negative": "a low bell", "window": 0.1, "overlap": 0.04}
    [sound] = model.generate([lines], 0.3, SAMPLING, 6, **making)  # type: ignore[arg-type]
    about = model.sidecar(lines, 0.3, SAMPLING, 6, scores=[0.1, 0.3], scorer="a/clap", **making)  # type: ignore[arg-type]
    told = json.loads(json.dumps(about))
    making = {name: told[name] for name in making}
    [again] = model.generate([told["text"]], told["seconds"], Sampling(**told["sampling"]), told["seed"], **making)
    assert torch.equal(again.samples, sound.samples)
    assert (told["scorer"], told["score"], told["scores"]) == ("a/clap", 0.3, [0.1, 0.3])
