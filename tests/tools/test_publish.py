"""A published model is the trained one in fewer bits, with its own fingerprints and a card of measured figures."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import publish
import pytest
import torch
import yaml
from publish_card import About, read_about, tables
from publish_rounding import forget_training, halve, rounding_error
from safetensors.torch import load_file
from torch import nn

from audiolm_kit import AudioGen, AudioLM, Sound, audio, checkpoint, provenance
from audiolm_kit.cli import main
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.conditioning import TextConfig
from audiolm_kit.evaluation.contrastive import PART, ContrastiveScorer
from audiolm_kit.lm.model import LMConfig, Prefix, StreamLM
from audiolm_kit.published import names
from audiolm_kit.published.names import Example
from audiolm_kit.semantic.features import FeatureConfig, FrameFeatures
from audiolm_kit.semantic.tokenizer import with_centroids
from audiolm_kit.stages import Stage
from audiolm_kit.transformer import TransformerConfig

ROOT = Path(__file__).parents[2]
RESULTS = "recipes/bells/results/main.json"
ROWS = [
    {"what": "bells heard: recordings (ceiling)", "percent": True, "value": 0.9},
    {"what": "bells heard", "percent": True, "value": 0.75, "count": 20, "by_model": [0.7, 0.8]},
    {"what": "bells heard: by chance (floor)", "percent": True, "value": 0.1},
    {"what": "something else", "value": 3.0},
]
ABOUT = About(
    licence="cc-by-4.0",
    data="Bells of Somewhere.",
    attribution="Recorded by Somebody.",
    limits="It knows no rain.",
    results=(RESULTS,),
    rows=("bells",),
    member=1,
    example=Example(("a bell rings", "rain falls"), (), 0.4, {"temperature": 0.5, "guidance_scale": 1.0}),
)


@pytest.fixture(autouse=True)
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tree of a repository with results of a recipe."""
    file = tmp_path / RESULTS
    file.parent.mkdir(parents=True)
    about = {"command": "make -C recipes/bells", "commit": "abc", "hardware": {"cpu": "Abacus", "cores": 3}, "hours": 2}
    file.write_text(json.dumps({"about": about, "table": ROWS}))
    monkeypatch.setattr(publish, "ROOT", tmp_path)
    return file


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of published models, the package's own while the test runs."""
    monkeypatch.setattr(names, "FOLDER", tmp_path / "published")
    return tmp_path / "published"


def published(source: Path, shelf: Path, name: str = "bells", about: About = ABOUT, **more: Any) -> publish.Published:
    return publish.publish(publish.Order(source, name, about, folder=shelf, **more))


def lm_of(**options: Any) -> StreamLM:
    return StreamLM(LMConfig(transformer=TransformerConfig(dim=16, heads=2, layers=1), **options))


@pytest.fixture(scope="module")
def audiolm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Semantic and acoustic stage, 12 semantic codes, 2 codebooks of 16."""
    torch.manual_seed(0)
    body = ConvNeXtConfig(dim=8, width=8, encoder_layers=1, decoder_layers=1, hop=80, fft_size=160)
    codec = NeuralCodec(CodecConfig(sample_rate=8000, convnext=body, quantizer=QuantizerConfig(2, 16, 8)))
    features = FrameFeatures(FeatureConfig("mel", sample_rate=8000, hop=320, num_mels=8))
    semantic = with_centroids(features, torch.randn(12, 8))
    semantic_lm = lm_of(num_codebooks=1, codebook_size=12, pattern="flatten")
    acoustic_lm = lm_of(num_codebooks=2, codebook_size=16, prefix=Prefix(1, 12))
    stages = {
        "semantic": (Stage("semantic", (0, 1), 2.0, (0, 0), True, 10.0), semantic_lm),
        "acoustic": (Stage("acoustic", (0, 2), 0.6, (0, 1)), acoustic_lm),
    }
    folder = tmp_path_factory.mktemp("audiolm") / "model"
    AudioLM(semantic, codec, stages).save(folder)  # type: ignore[arg-type]
    return folder


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    audio.write(tmp_path / "anna.wav", Sound(0.3 * torch.sin(torch.arange(2400) * 0.3)[None], 8000))
    return tmp_path / "anna.wav"


# --- weights


def test_a_published_audiogen_is_opened_by_its_name_and_expects_the_same(trained: Path, shelf: Path) -> None:
    done = published(trained, shelf)
    before, after = AudioGen.load(trained), AudioGen.load("bells")
    assert {weight.dtype for part in (after.codec, after.lm) for weight in part.parameters()} == {torch.float32}
    for name, weight in after.codec.state_dict().items():
        exact = before.codec.state_dict()[name]
        if name.startswith("decoder."):
            assert ((weight - exact).abs() <= exact.abs().max() / 127).all()
        else:  # what makes codes
            assert name.endswith(("embed_sum", "cluster_size")) or torch.equal(weight, exact.half().float())
    for name, weight in after.lm.state_dict().items():
        exact = before.lm.state_dict()[name]
        step = exact.abs().amax(-1, keepdim=True) / 127 if exact.dim() > 1 else torch.zeros(1)
        assert ((weight - exact).abs() <= 0.501 * step).all()
    stored = {part: load_file(done.folder / part / checkpoint.WEIGHTS) for part in ("codec", "lm")}
    for name, weight in stored["codec"].items():  # scales are float32: 8 bits are read to the last bit
        wanted = torch.float32 if name.endswith(":scale") else torch.float16
        assert weight.dtype == wanted or (weight.dtype == torch.int8 and name.startswith("decoder."))
    assert sum(weight.dtype == torch.int8 for weight in stored["codec"].values()) > 1
    assert not any(name.endswith("embed_sum") for name in stored["codec"])  # equal to embed, and stored once
    assert sum(weight.dtype == torch.int8 for weight in stored["lm"].values()) > 4
    for sound in after.generate(list(ABOUT.example.texts), 0.4, seed=0):
        assert sound.samples.shape == (1, 3200) and bool(sound.samples.isfinite().all())
    assert done.differences["error of the logits by their deviation"] < 0.03
    assert min(done.differences[f"{which} that stay"] for which in ("codes", "likeliest codes")) > 0.95


def test_a_published_audiolm_keeps_its_semantic_codes_and_continues(
    audiolm_folder: Path, shelf: Path, prompt: Path
) -> None:
    about = dataclasses.replace(ABOUT, example=Example(seconds=0.6, sampling={"semantic": 0.7}))
    done = published(audiolm_folder, shelf, about=about, prompts=(prompt,))
    before, after = AudioLM.load(audiolm_folder), AudioLM.load("bells")
    assert after.fingerprints["semantic"] == before.fingerprints["semantic"]
    assert after.fingerprints["codec"] != before.fingerprints["codec"]
    assert done.differences["semantic codes that stay"] == 1.0
    assert done.differences["stage acoustic: likeliest codes that stay"] > 0.95
    assert names.example(done.folder) == Example((), ("prompt-1.wav",), 0.6, {"semantic": 0.7})
    [sound] = after.continue_([audio.read(done.folder / "prompt-1.wav")], 0.6)
    assert sound.samples.shape == (1, 4800)
    assert main(["continue", "bells", str(prompt), "-o", str(prompt.with_name("whole.wav")), "--seconds", "0.6"]) == 0
    assert audio.info(prompt.with_name("whole.wav"))[2] == 4800
    card = (done.folder / "README.md").read_text()
    assert "audiolm-kit continue bells prompt.wav" in card and "stages/acoustic int8" in card


def test_a_published_audiogen_brings_what_chooses_among_its_takes(
    trained: Path, audiolm_folder: Path, shelf: Path, scorer_folder: Path
) -> None:
    about = dataclasses.replace(ABOUT, example=dataclasses.replace(ABOUT.example, candidates=3))
    done = published(trained, shelf, about=about, scorer=scorer_folder)
    model, exact = AudioGen.load("bells"), ContrastiveScorer.load(scorer_folder)
    assert model.scorer is not None and names.example(done.folder).chosen == {"candidates": 3}
    stored = load_file(done.folder / "scorer" / PART / checkpoint.WEIGHTS)
    assert {weight.dtype for weight in stored.values() if weight.is_floating_point()} == {torch.float16}
    assert torch.allclose(model.scorer.embed_texts(["a bell rings"]), exact.embed_texts(["a bell rings"]), atol=1e-3)
    [choice] = model.best_of(["a bell rings"], 0.4, candidates=3)
    assert len(choice.scores) == 3
    card = (done.folder / "README.md").read_text()
    assert "--candidates 3" in card and "candidates=3" in card
    with pytest.raises(ValueError, match="leave scorer out"):
        published(audiolm_folder, shelf, "words", scorer=scorer_folder)


def test_the_fingerprints_are_those_of_what_is_stored(trained: Path, shelf: Path) -> None:
    folder = published(trained, shelf).folder
    stored = checkpoint.read_kind(folder, "AudioGen")["fingerprints"]
    assert stored == AudioGen.load(folder).fingerprints
    earlier = checkpoint.read_kind(trained, "AudioGen")["fingerprints"]
    assert stored["text.model"] == earlier["text.model"]
    assert stored["codec"] != earlier["codec"] and stored["lm"] != earlier["lm"]
    assert all(f"`{stored[part]}`" in (folder / "README.md").read_text() for part in ("codec", "lm"))


def test_each_weight_becomes_the_number_of_half_size_that_is_nearer() -> None:
    usual, large = nn.Linear(8, 8), nn.Linear(8, 8)
    nn.init.constant_(large.bias, 1e5)
    assert rounding_error(usual, torch.float16) < rounding_error(usual, torch.bfloat16) / 4
    assert rounding_error(large, torch.float16) == float("inf")
    assert (halve(usual), halve(large)) == (torch.float16, torch.bfloat16)


def test_sums_that_training_alone_reads_do_not_spoil_the_range(trained: Path) -> None:
    codec, noise = AudioGen.load(trained).codec, torch.randn(1, 1, 800, generator=torch.Generator().manual_seed(0))
    assert isinstance(codec, NeuralCodec)
    codes = codec.encode(noise)
    codec.get_buffer("quantizer.books.0.embed_sum").fill_(1e6)
    forget_training(codec)
    assert torch.equal(codec.encode(noise), codes) and halve(codec) == torch.float16


# --- folder


def test_all_models_together_stay_below_the_limit(trained: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(published(trained, shelf, "bells").sizes.values())
    monkeypatch.setattr(publish, "LIMIT", round(1.5 * size))
    before = sorted(path.name for path in (shelf / "bells").rglob("*"))
    with pytest.raises(ValueError, match=r"all models together have .* MB \(bells .* MB, rain .* MB\), wanted at most"):
        published(trained, shelf, "rain")
    assert [path.name for path in shelf.iterdir()] == ["bells"]
    published(trained, shelf, "bells")  # in its own place
    assert sorted(path.name for path in (shelf / "bells").rglob("*")) == before


@pytest.mark.parametrize("name", ["Bells", "a/b", "../bells", "bells_2", ""])
def test_a_name_is_one_word(name: str, trained: Path, shelf: Path) -> None:
    with pytest.raises(ValueError, match="wanted small letters, digits and hyphens"):
        published(trained, shelf, name)


def test_what_is_no_whole_model_is_refused(trained: Path, shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds a NeuralCodec, wanted an AudioGen"):
        published(trained / "codec", shelf)
    with pytest.raises(FileNotFoundError, match="no checkpoint folder at"):
        published(tmp_path / "nowhere", shelf)
    assert not shelf.exists()


def test_a_model_that_needs_the_network_is_refused(trained: Path, audiolm_folder: Path) -> None:
    speaking, wordless = AudioGen.load(trained), AudioLM.load(audiolm_folder)
    speaking.lm.config = dataclasses.replace(speaking.lm.config, text=TextConfig(kind="t5"))
    with pytest.raises(ValueError, match=r"reads captions by a T5 \(t5-base\), which is too large to come along"):
        publish.refuse_fetched(speaking)
    features = FeatureConfig("ssl", model="facebook/hubert-base")
    wordless.semantic.config = dataclasses.replace(wordless.semantic.config, features=features)
    with pytest.raises(ValueError, match="those of facebook/hubert-base, which has to be fetched"):
        publish.refuse_fetched(wordless)


def test_a_prompt_that_is_not_there_is_told(trained: Path, shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no prompt at .*gone.wav"):
        published(trained, shelf, prompts=(tmp_path / "gone.wav",))


def test_an_option_that_there_is_not_is_told(trained: Path, shelf: Path) -> None:
    about = dataclasses.replace(ABOUT, example=Example(sampling={"heat": 1.0}))
    with pytest.raises(ValueError, match="sampling of the example is {'heat': 1.0}"):
        published(trained, shelf, about=about)
    assert not list(shelf.iterdir())


# --- card


def test_the_card_has_the_files_figures_with_ceiling_and_floor(trained: Path, shelf: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(trained, tmp_path / "model"))
    provenance.write(source, {"task": "LMTask", "steps": 7, "seed": 1, "ranks": 1, "precision": "32-true"})
    folder = published(source, shelf).folder
    card = (folder / "README.md").read_text()
    assert "| bells heard: recordings (ceiling) | 90.0 % |" in card and "(floor) | 10.0 % |" in card
    assert "| bells heard | 75.0 % |  | 20 |  |  |  | 80.0 % |" in card and "something else" not in card
    assert "commit `abc`, 3 cores of Abacus, 2.00 hours" in card and "make -C recipes/bells" in card
    assert all(each in card for each in ("Bells of Somewhere.", "Recorded by Somebody.", "It knows no rain."))
    assert "license: cc-by-4.0" in card and "LMTask, 7 steps" in card
    assert "codec float16 (its decoder int8), lm int8" in card
    assert provenance.read(folder) == provenance.read(source)


def test_what_the_card_shows_runs(trained: Path, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = (published(trained, shelf).folder / "README.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec(compile(card.split("```python\n")[1].split("```")[0], "card.md", "exec"), {})
    assert audio.info("sound.wav")[2] == 3200
    assert 'generate bells "a bell rings" -o sound.wav --temperature 0.5 --guidance_scale 1.0' in card


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (("bells", "rain"), "has 'rain' in its name"),
        (("something", "ceiling"), r"has \(floor\) in its name"),
        (("floor",), r"has \(ceiling\) in its name"),
    ],
)
def test_figures_without_their_bounds_are_refused(rows: tuple[str, ...], told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        tables(dataclasses.replace(ABOUT, rows=rows), tmp_path)


def test_a_model_that_was_not_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no results at .*gone.json: measure the model first"):
        tables(dataclasses.replace(ABOUT, results=("gone.json",)), tmp_path)
    with pytest.raises(ValueError, match="member is 2, but 'bells heard' is the mean of 2 models"):
        tables(dataclasses.replace(ABOUT, member=2), tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"limits": ""}, "says nothing of limits: no model is published without"),
        ({"results": []}, "says nothing of results"),
        ({"size": 3}, "does not say what a card needs"),
        ({"example": {"text": "a"}}, "does not say what a card needs"),
    ],
)
def test_what_a_card_must_say_is_asked_for(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    file, whole = tmp_path / "bells.yaml", {**dataclasses.asdict(ABOUT), "results": [RESULTS]}
    whole["example"] = {"texts": ["a"], "seconds": 1.0}
    file.write_text(yaml.safe_dump(json.loads(json.dumps(whole))))
    assert read_about(file).example == Example(("a",), (), 1.0)
    file.write_text(yaml.safe_dump(json.loads(json.dumps({**whole, **change}))))
    with pytest.raises(ValueError, match=told):
        read_about(file)


def test_a_file_that_is_missing_or_damaged_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="write what the card is to say"):
        read_about(tmp_path / "gone.yaml")
    for content in ("", "- a\n", "a: [\n"):
        (tmp_path / "bad.yaml").write_text(content)
        with pytest.raises(ValueError, match="does not say what a card needs"):
            read_about(tmp_path / "bad.yaml")


@pytest.mark.parametrize("file", sorted((ROOT / "tools" / "published").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_cards_that_are_prepared_have_their_figures(file: Path) -> None:
    about = read_about(file)
    assert names.NAME.fullmatch(file.stem) and "(ceiling)" in tables(about, ROOT)


# --- command line


def test_the_command_line_publishes_and_says_what_takes_the_space(
    trained: Path, shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tools" / "published" / "bells.yaml"
    with pytest.raises(SystemExit) as stop:
        publish.main([str(trained), "--name", "bells", "-o", str(shelf)])
    assert stop.value.code == 2 and "no " + str(file) in capsys.readouterr().err
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump(json.loads(json.dumps(dataclasses.asdict(ABOUT)))))
    publish.main([str(trained), "--name", "bells", "-o", str(shelf)])
    told = capsys.readouterr().out
    assert "  codec " in told and f"{shelf / 'bells'}: 0." in told and names.models() == {"bells": "AudioGen"}
