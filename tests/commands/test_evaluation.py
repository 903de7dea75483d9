"""The verb evaluate: from folders to three files, what generate writes among them, and one line for each mistake."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml

from audiolm_kit import arguments, audio
from audiolm_kit.audio import Sound
from audiolm_kit.cli import main
from audiolm_kit.commands.evaluation import evaluate
from audiolm_kit.data.manifest import build_manifest
from audiolm_kit.evaluation import report
from audiolm_kit.evaluation.plan import Plan, read_plan

RATE = 8000


def sound(place: int, noise: float) -> Sound:
    generator = torch.Generator().manual_seed(place)
    steps = torch.arange(RATE // 2) / RATE
    tone = 0.3 * torch.sin(6.2832 * (200 + 60 * place) * steps)
    return Sound((tone + noise * torch.randn(len(steps), generator=generator))[None], RATE)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    for place in range(10):
        for name, noise in (("real", 0.001), ("made", 0.05)):
            audio.write(folder / name / f"{place}.wav", sound(place, noise))
        (folder / "made" / f"{place}.json").write_text(json.dumps({"text": f"tone {place}"}))
    return folder


def test_without_a_plan_all_is_measured_that_needs_no_download(
    sounds: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(
        str(sounds / "made"), output=str(tmp_path), references=str(sounds / "real"), codec=str(trained), device="cpu"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "metrics.md", "report.html"]
    found = report.read(tmp_path / "metrics.json")
    wanted = ["si_sdr", "stft_distance", "mel_distance", "codebook_use", "codebook_entropy"]
    assert [each.metric for each in found.results] == [*wanted, "frechet_distance", "kernel_distance"]
    assert all(each.measure.size == 10 and each.measure.low <= each.measure.high for each in found.results)
    assert found.about["name"] == "made" and found.about["pairs"] == 10 and found.texts["3"] == "tone 3"
    assert str(tmp_path) not in (tmp_path / "metrics.json").read_text()  # names, no places of this machine
    assert str(trained) not in (tmp_path / "metrics.json").read_text()
    told = capsys.readouterr().out
    assert "Kernel distance" in told and told.endswith("report.html\n")
    assert (tmp_path / "metrics.md").read_text().startswith("|  | N | SI-SDR ↑ |")


def test_recordings_are_at_nought_from_themselves(sounds: Path, trained: Path, tmp_path: Path) -> None:
    real = str(sounds / "real")
    evaluate(real, output=str(tmp_path), references=real, codec=str(trained / "codec"), device="cpu", name="the real")
    found = {each.metric: each for each in report.read(tmp_path / "metrics.json").results}
    assert found["frechet_distance"].measure.value < 1e-6
    assert found["si_sdr"].measure.value == 100 and found["mel_distance"].measure.value == 0
    assert "<h1>the real</h1>" in (tmp_path / "report.html").read_text()


def test_a_manifest_tells_references_and_captions(sounds: Path, tmp_path: Path) -> None:
    build_manifest(sounds / "real", tmp_path / "manifest.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    rows = [{**line, "caption": f"the real {Path(line['path']).stem}"} for line in lines]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bare = tmp_path / "bare"
    for place in range(10):
        audio.write(bare / f"{place}.wav", sound(place, 0.05))
    evaluate(str(bare), output=str(tmp_path / "out"), references=str(tmp_path / "manifest.jsonl"), device="cpu")
    found = report.read(tmp_path / "out" / "metrics.json")
    assert found.about["pairs"] == 10 and found.texts["3"] == "the real 3"


def test_a_plan_may_name_functions_of_the_library_and_come_in_layers(sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(
        "signal: [si_sdr]\nembedders: [{kind: function, name: 'audiolm_kit.commands.evaluation:nothing'}]\n"
    )
    (tmp_path / "more.yaml").write_text("embedders: []\nmusic: [chroma_similarity]\ndraws: 30\n")
    plans = (str(tmp_path / "plan.yaml"), str(tmp_path / "more.yaml"))
    given = {"references": str(sounds / "real"), "device": "cpu"}
    evaluate(str(sounds / "made"), output=str(tmp_path / "out"), config=plans, **given)
    found = report.read(tmp_path / "out" / "metrics.json")
    assert [each.metric for each in found.results] == ["si_sdr", "chroma_similarity"] and found.plan["draws"] == 30
    with pytest.raises(ValueError, match="no function 'audiolm_kit.commands.evaluation:nothing'"):
        evaluate(str(sounds / "made"), output=str(tmp_path / "out"), config=plans[:1], **given)


def test_what_generate_writes_can_be_judged(audiogen_folder: Path, tmp_path: Path) -> None:
    call = ["generate", str(audiogen_folder), "a bell", "rain", "-o", str(tmp_path / "made"), "--seconds", "0.2"]
    assert main(call) == 0
    evaluate(str(tmp_path / "made"), output=str(tmp_path / "out"), codec=str(audiogen_folder), device="cpu")
    found = report.read(tmp_path / "out" / "metrics.json")
    assert found.texts == {"1": "a bell", "2": "rain"}
    assert [each.metric for each in found.results] == ["codebook_use", "codebook_entropy"]


def test_mistakes_are_one_line_before_any_work(sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("codes: true\n")
    made, out = str(sounds / "made"), str(tmp_path / "out")
    for given, said in (
        ({}, "nothing to measure: give references, a codec, or a plan"),
        ({"config": (str(tmp_path / "plan.yaml"),)}, "the plan asks what a codec hears, and none is given"),
        ({"references": str(tmp_path / "nowhere")}, "no folder .*nowhere"),
        ({"codec": str(tmp_path)}, "no config.json"),
        ({"references": str(sounds / "real"), "device": "abacus"}, "device is 'abacus'"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=said) as error:
            evaluate(made, output=out, **given)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)
    assert not Path(out).exists()


def test_the_verb_reads_its_command_line(sounds: Path, tmp_path: Path) -> None:
    given = [str(sounds / "made"), "-o", str(tmp_path), "--references", str(sounds / "real"), "--device", "cpu"]
    arguments.call(evaluate, given, "audiolm-kit evaluate")
    assert (tmp_path / "report.html").is_file()


# --- docs/evaluating.md -----------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "evaluating.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The contents of the page's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_pages_plan_is_one_that_names_every_setting(tmp_path: Path) -> None:
    [text] = blocks("yaml")
    (tmp_path / "plan.yaml").write_text(text)
    plan = read_plan([tmp_path / "plan.yaml"])
    assert {model.kind for model in plan.embedders} == {"codec", "clap", "ast", "ssl", "encodec", "function"}
    assert set(yaml.safe_load(text)) == {field.name for field in fields(Plan)}


def test_the_pages_commands_are_understood() -> None:
    lines = [shlex.split(line)[1:] for line in "".join(blocks("sh")).splitlines()]
    for verb, *given in lines:
        if verb == "evaluate":
            arguments.parser_of(evaluate, "audiolm-kit evaluate").parse_args(given)
    assert [verb for verb, *_ in lines] == ["generate", "evaluate", "evaluate"]


def test_the_pages_library_use_runs(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate(str(sounds / "made"), output="report", references=str(sounds / "real"), device="cpu")
    for code in blocks("python"):
        exec(compile(code, "evaluating.md", "exec"), {})
