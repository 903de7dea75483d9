"""The suite with judges that are functions: who is asked what, ceilings, floors, what is left out, what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from audiolm_kit import audio
from audiolm_kit.audio import Sound
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.evaluation import suite
from audiolm_kit.evaluation.distribution import frechet_distance, kernel, kernel_distance
from audiolm_kit.evaluation.embedding import FrameEmbedder, Named, function_of
from audiolm_kit.evaluation.examples import Clip, Example
from audiolm_kit.evaluation.job import Job, Judges, mixed
from audiolm_kit.evaluation.pairs import aligned
from audiolm_kit.evaluation.plan import Model, Plan
from audiolm_kit.evaluation.report import Result
from audiolm_kit.evaluation.signal import si_sdr

RATE = 8000
COUNT = 12
WORDS = ["one", "two", "three", "four"]


def tone(place: int, noise: float, rate: int = RATE) -> Sound:
    steps = torch.arange(rate // 2) / rate
    generator = torch.Generator().manual_seed(place)
    samples = 0.3 * torch.sin(2 * math.pi * (300 + 40 * place) * steps)
    return Sound((samples + noise * torch.randn(len(steps), generator=generator))[None], rate)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings, and the same with noise."""
    folder = tmp_path_factory.mktemp("sounds")
    for place in range(COUNT):
        audio.write(folder / "real" / f"{place}.wav", tone(place, 0.0))
        audio.write(folder / "made" / f"{place}.wav", tone(place, 0.02))
    return folder


def examples(folder: Path, kind: str) -> list[Example]:
    made = []
    for place in range(COUNT):
        real = Clip(folder / "real" / f"{place}.wav")
        word = WORDS[place % 4]
        made.append(Example(str(place), Clip(folder / kind / f"{place}.wav"), real, f"the word {word}", word))
    return made


def job(folder: Path, plan: Plan, kind: str = "made", **judges: Sequence[object]) -> Job:
    return Job(examples(folder, kind), examples(folder, "real"), replace(plan, draws=50), Judges(**judges))


def by_key(found: list[Result]) -> dict[str, Result]:
    return {result.key: result for result in found}


def pitch_of(sound: Sound) -> int:
    """Which of the tones it is."""
    spectrum = torch.fft.rfft(sound.samples[0]).abs()
    return round((float(spectrum.argmax()) * sound.sample_rate / sound.samples.shape[1] - 300) / 40)


def embed(sounds: Sequence[Sound]) -> Tensor:
    bands = [torch.fft.rfft(sound.samples[0])[:800].abs().reshape(4, -1).mean(1).log() for sound in sounds]
    return torch.stack(bands)


FUNCTION = Model("function", "some:function")


def named(function: object) -> Named:
    return Named("some:function", "f" * 16, function)  # type: ignore[arg-type]


def test_pairs_are_scored_each_by_itself_and_told_by_name(folder: Path) -> None:
    found = by_key(suite.run(job(folder, Plan(signal=("si_sdr", "stft_distance", "mel_distance")))))
    assert list(found) == ["si_sdr", "stft_distance", "mel_distance"]
    first = examples(folder, "made")[3]
    made, real, _, _ = aligned(first)
    assert found["si_sdr"].values["3"] == pytest.approx(float(si_sdr(made, real)))
    assert found["si_sdr"].measure.value == pytest.approx(np.mean(list(found["si_sdr"].values.values())))
    assert found["si_sdr"].measure.size == COUNT and found["si_sdr"].measure.low < found["si_sdr"].measure.value


def test_pairs_meet_at_the_lower_rate_and_the_shorter_length(tmp_path: Path) -> None:
    real, made = tone(1, 0.0, 16000), tone(1, 0.0)
    audio.write(tmp_path / "real.wav", Sound(real.samples.repeat(2, 1), 16000))
    audio.write(tmp_path / "made.wav", Sound(made.samples[:, :3000], RATE))
    pair = Example("a", Clip(tmp_path / "made.wav"), Clip(tmp_path / "real.wav"))
    first, second, rate, apart = aligned(pair)
    assert first.shape == second.shape == (3000,) and rate == RATE and apart == pytest.approx(0.25)
    [result] = suite.run(Job([pair, Example("b", pair.clip)], [], Plan(signal=("si_sdr",))))
    assert result.notes[0] == "1 of 2 without a reference" and "1 pairs differ in length" in result.notes[1]
    assert result.measure.value > 20 and math.isnan(result.measure.low)


def test_what_cannot_be_scored_is_left_out_and_told(folder: Path, tmp_path: Path) -> None:
    audio.write(tmp_path / "silent.wav", Sound(torch.zeros(1, 4000), RATE))
    silent = Example("silent", examples(folder, "made")[0].clip, Clip(tmp_path / "silent.wav"))
    some = [*examples(folder, "made")[:3], silent]
    [result] = suite.run(Job(some, [], Plan(signal=("mel_distance",))))
    assert result.measure.size == 3 and "1 left out; silent: 1 of 1 references are silent" in result.notes[0]
    [result] = suite.run(Job([silent], [], Plan(signal=("mel_distance",))))
    assert result.measure.size == 0 and math.isnan(result.measure.value)


def test_distances_are_those_of_the_embeddings(folder: Path) -> None:
    given = job(folder, Plan(embedders=(FUNCTION,)), embedders=[named(embed)])
    strangers = [replace(example, reference=None) for example in given.examples]
    found = by_key(suite.run(replace(given, examples=strangers)))
    made, real = (embed([each.clip.read() for each in examples(folder, kind)]) for kind in ("made", "real"))
    frechet, kernels = found[f"frechet_distance@{'f' * 16}"], found[f"kernel_distance@{'f' * 16}"]
    assert frechet.measure.value == pytest.approx(frechet_distance(real, made))
    assert kernels.measure.value == pytest.approx(kernel_distance(real, made))
    assert frechet.references == COUNT and frechet.notes[0].startswith("12 sounds in 4 dimensions are few")
    assert frechet.measure.low <= frechet.measure.value <= frechet.measure.high and kernels.ceiling is not None


def test_sounds_in_step_with_the_references_are_drawn_in_pairs_whatever_their_order(folder: Path) -> None:
    given = job(folder, Plan(embedders=(FUNCTION,)), embedders=[named(embed)])
    found = by_key(suite.run(replace(given, references=given.references[::-1])))
    made, real = (embed([each.clip.read() for each in examples(folder, kind)]) for kind in ("made", "real"))
    result, ones = found[f"kernel_distance@{'f' * 16}"], np.ones(COUNT)
    assert result.measure.value == pytest.approx(kernel(real, made, pairs=True)(ones, ones))
    assert result.facts == ("drawn in pairs",)
    [own] = suite.run(job(folder, Plan(embedders=(FUNCTION,), distances=("kernel",)), "real", embedders=[named(embed)]))
    assert abs(own.measure.value) < 1e-9 and abs(own.measure.high) < 1e-9


def test_recordings_are_at_nought_from_themselves_and_noise_is_farther(folder: Path) -> None:
    plan = Plan(embedders=(FUNCTION,), distances=("frechet",))
    [own] = suite.run(job(folder, plan, "real", embedders=[named(embed)]))
    [noisy] = suite.run(job(folder, plan, "made", embedders=[named(embed)]))
    assert own.measure.value < 1e-6 < noisy.measure.value


def test_a_covariance_of_too_few_sounds_is_told(folder: Path) -> None:
    wide = named(lambda sounds: torch.cat([embed(sounds)] * 5, 1))
    [result] = suite.run(job(folder, Plan(embedders=(FUNCTION,), distances=("frechet",)), embedders=[wide]))
    assert result.notes[0].startswith("12 sounds in 20 dimensions: the covariance is singular")


def test_what_comes_out_does_not_depend_on_the_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = job(folder, Plan(embedders=(FUNCTION,)), embedders=[named(embed)])
    whole = suite.run(given)
    monkeypatch.setattr("audiolm_kit.evaluation.job.BATCH", 5)
    assert [each.measure for each in suite.run(given)] == [each.measure for each in whole]


def classify(sounds: Sequence[Sound]) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor([pitch_of(sound) % 4 for sound in sounds]), 4) * 0.9 + 0.025


def test_classifiers_tell_the_divergence_from_references_and_the_inception_score(folder: Path) -> None:
    found = by_key(suite.run(job(folder, Plan(classifiers=(FUNCTION,)), classifiers=[named(classify)])))
    kl, score = found[f"kl_divergence@{'f' * 16}"], found[f"inception_score@{'f' * 16}"]
    assert kl.measure.value == pytest.approx(0) and kl.floor is not None and kl.floor.value > 0.5
    assert (
        score.ceiling is not None
        and score.measure.value == pytest.approx(score.ceiling.value)
        and 2 < score.measure.value < 4
    )


def test_a_scorer_is_asked_for_the_own_and_for_other_captions(folder: Path) -> None:
    def score(sounds: Sequence[Sound], texts: Sequence[str]) -> Tensor:
        return torch.tensor(
            [float(WORDS[pitch_of(each) % 4] in text) for each, text in zip(sounds, texts, strict=True)]
        )

    [found] = suite.run(job(folder, Plan(scorers=(FUNCTION,)), scorers=[named(score)]))
    assert found.metric == "text_score" and found.measure.value == 1
    assert found.floor is not None and found.floor.value == 0 and found.ceiling is not None and found.ceiling.value == 1


@dataclass
class Space:
    """A CLAP of four words."""

    name: str = "clap"
    fingerprint: str = "c" * 16

    def embed_sounds(self, sounds: Sequence[Sound]) -> Tensor:
        return torch.eye(4)[[pitch_of(sound) % 4 for sound in sounds]]

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return torch.eye(4)[[WORDS.index(text.split()[-1]) for text in texts]]


def test_clap_scores_and_retrieves_both_ways(folder: Path) -> None:
    plan = Plan(scorers=(Model("clap", "clap"),), recalls=(1, 3, 10))
    found = {each.metric: each for each in suite.run(job(folder, plan, scorers=[Space()]))}
    assert list(found) == [
        "text_score",
        "text_recall_at_1",
        "text_recall_at_3",
        "sound_recall_at_1",
        "sound_recall_at_3",
        "sound_recall_at_10",
    ]  # among four captions ten are all
    assert all(each.measure.value == 1 for each in found.values())
    floor = found["text_score"].floor
    assert floor is not None and floor.value == 0
    assert found["text_recall_at_1"].measure.size == COUNT and found["sound_recall_at_1"].measure.size == 4
    assert found["sound_recall_at_1"].facts == ("among 12 sounds",)


def test_a_recogniser_is_held_to_what_was_to_be_said(folder: Path) -> None:
    def recognise(sounds: Sequence[Sound]) -> list[str]:
        places = [pitch_of(sound) for sound in sounds]
        return ["what?" if place == 5 else WORDS[place % 4].upper() for place in places]

    plan = Plan(recognisers=(FUNCTION,))
    found = {each.metric: each for each in suite.run(job(folder, plan, recognisers=[named(recognise)]))}
    words = found["word_errors"]
    assert words.measure.value == pytest.approx(1 / 12) and words.values["5"] == 1 and words.values["6"] == 0
    assert words.floor is not None and words.floor.value == 1 and words.ceiling is not None
    assert words.ceiling.value == pytest.approx(1 / 12) and words.parts == {"length": 12, "errors": 1}
    assert 0 < found["character_errors"].measure.value < 0.2


def test_voices_are_compared_with_the_reference_or_with_what_follows_the_prompt(folder: Path, tmp_path: Path) -> None:
    heard: list[int] = []

    def voice(sounds: Sequence[Sound]) -> Tensor:
        heard.extend(sound.samples.shape[1] for sound in sounds)
        return torch.nn.functional.one_hot(torch.tensor([pitch_of(sound) for sound in sounds]), 20).float()

    [found] = suite.run(job(folder, Plan(voices=(FUNCTION,)), voices=[named(voice)]))
    assert found.measure.value == 1 and found.floor is not None and found.floor.value == 0
    heard.clear()
    audio.write(tmp_path / "prompt.wav", Sound(tone(0, 0.0).samples[:, :1000], RATE))
    audio.write(tmp_path / "whole.wav", tone(0, 0.0))
    continued = Example("0", Clip(tmp_path / "whole.wav"), prompt=Clip(tmp_path / "prompt.wav"))
    plan = Plan(voices=(FUNCTION,), voice_of="prompt")
    suite.run(Job([continued], [], plan, Judges(voices=[named(voice)])))
    assert heard == [3000, 1000]
    short = replace(continued, clip=Clip(tmp_path / "prompt.wav"))
    with pytest.raises(ValueError, match="ends with its prompt"):
        suite.run(Job([short], [], plan, Judges(voices=[named(voice)])))


def test_music_is_compared_and_told_by_itself(folder: Path) -> None:
    plan = Plan(music=("chroma_similarity", "chroma_entropy"))
    found = by_key(suite.run(job(folder, plan)))
    assert found["chroma_similarity"].measure.value > 0.9
    entropy = found["chroma_entropy"]
    assert entropy.ceiling is not None and entropy.measure.value > entropy.ceiling.value


@pytest.fixture(scope="module")
def codec() -> NeuralCodec:
    torch.manual_seed(0)
    body = ConvNeXtConfig(dim=8, width=8, encoder_layers=1, decoder_layers=1, hop=40, fft_size=160, frames_per_code=2)
    quantizer = QuantizerConfig(num_codebooks=2, codebook_size=16, dim=8)
    return NeuralCodec(CodecConfig(sample_rate=RATE, convnext=body, quantizer=quantizer)).eval()


def test_the_codec_tells_how_its_codebooks_are_used(folder: Path, codec: NeuralCodec) -> None:
    judges = Judges(codec, "codec", "d" * 16)
    given = Job(examples(folder, "made"), examples(folder, "real"), Plan(codes=True, draws=50), judges)
    found = by_key(suite.run(given))
    use, entropy = found[f"codebook_use@{'d' * 16}"], found[f"codebook_entropy@{'d' * 16}"]
    assert 0 < use.measure.value <= 1 and 0 < entropy.measure.value <= 4
    assert list(use.parts) == ["codebook 1", "codebook 2"] and use.measure.value == pytest.approx(
        np.mean(list(use.parts.values()))
    )
    assert entropy.ceiling is not None and "each codebook has 16 codes, 4 bits at most" in entropy.facts[0]
    with pytest.raises(ValueError, match="there is no codec"):
        suite.run(replace(given, judges=Judges()))


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan(), "nothing to measure: give references, a codec, or a plan"),
        (Plan(signal=("si_sdr",)), "no sound has a reference of its name"),
        (Plan(embedders=(FUNCTION,)), "distances from references: give them"),
        (Plan(scorers=(FUNCTION,)), r"no sound has a caption: put a note beside it \(NAME.json with \"text\"\)"),
        (Plan(recognisers=(FUNCTION,)), "no sound has a transcript"),
        (Plan(voices=(FUNCTION,), voice_of="prompt"), "no sound has a prompt that is still there"),
    ],
)
def test_a_plan_that_the_sounds_do_not_fit_is_refused_before_any_work(plan: Plan, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        suite.run(Job([Example("a", Clip(Path("nowhere.wav")))], [], plan))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (named(lambda sounds: torch.zeros(3)), r"an embedder gives \[3\] for 12 sounds"),
        (named(lambda sounds: [0] * len(sounds)), "an embedder gives list for 12 sounds"),
    ],
)
def test_a_judge_that_answers_otherwise_is_refused(folder: Path, given: Named, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        suite.run(job(folder, Plan(embedders=(FUNCTION,)), embedders=[given]))


def test_everybody_gets_somebody_elses() -> None:
    for count in (2, 3, 10):
        found = mixed(count, 0)
        assert sorted(found) == list(range(count)) and all(place != other for place, other in enumerate(found))
    assert mixed(10, 0) == mixed(10, 0) != mixed(10, 1) and mixed(1, 0) == [0]


# --- judges of functions and frames -----------------------------------------------------------------------------------


def test_a_function_is_found_by_its_name_and_known_by_its_source() -> None:
    found = function_of("audiolm_kit.audio:rms_dbfs")
    assert found(torch.ones(1, 4)) == 0 and found.name == "audiolm_kit.audio:rms_dbfs"
    assert found.fingerprint == function_of(found.name).fingerprint
    assert found.fingerprint != function_of("audiolm_kit.audio:loudness").fingerprint


@pytest.mark.parametrize(
    "name", ["nowhere:f", "audiolm_kit.audio:nothing", "audiolm_kit.audio", "audiolm_kit.audio:FULL_SCALE"]
)
def test_what_names_no_function_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError, match="give module:function, importable from here") as error:
        function_of(name)
    assert "\n" not in str(error.value)


def test_frames_are_pooled_over_the_whole_sound() -> None:
    def frames(samples: Tensor) -> Tensor:
        return samples[0, :6].reshape(3, 2)

    sound = Sound(torch.arange(6.0)[None] / 10, RATE)
    [mean] = FrameEmbedder("x", "f", frames, RATE)([sound])
    assert mean.tolist() == pytest.approx([0.2, 0.3])
    [both] = FrameEmbedder("x", "f", frames, RATE, pool="mean_std")([sound])
    assert both.tolist() == pytest.approx([0.2, 0.3, math.sqrt(0.08 / 3), math.sqrt(0.08 / 3)])
