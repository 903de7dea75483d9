"""Every page keeps its word: commands parse, makes and tools are there, links lead somewhere, Python runs.

More is tested of some pages in files of their own: test_readme.py, test_generating.py, test_audiolm_page.py,
test_weights_page.py, commands/test_evaluation.py; the commands of recipes' READMEs are parsed in tests/recipes.
"""

from __future__ import annotations

import ast
import re
import runpy
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import ROOT, Page, page, pages

from audiolm_kit import arguments, audio, checkpoint, cli
from audiolm_kit.codec.convnext_config import ConvNeXtConfig
from audiolm_kit.codec.model import CodecConfig, NeuralCodec
from audiolm_kit.codec.rvq import QuantizerConfig
from audiolm_kit.conditioning import TextConditioner, TextConfig
from audiolm_kit.inference.audiogen import AudioGen
from audiolm_kit.lm.model import LMConfig, StreamLM
from audiolm_kit.text import train
from audiolm_kit.transformer import TransformerConfig

PAGES = pages()
RUN = ("docs/index.md", "docs/tutorial.md", "docs/streaming.md", "docs/finetuning.md")
RUN_ALSO = tuple(each.name for each in PAGES if each.name.startswith("docs/papers/") and each.blocks("python"))
RUN_ELSEWHERE = ("README.md", "docs/generating.md", "docs/evaluating.md", "docs/weights.md")


# --- commands ---------------------------------------------------------------------------------------------------------


def kit_commands() -> list[Any]:
    """Each page's; a fit takes a second or two, and all but the first of a page are slow tests."""
    found = []
    for each in (each for each in PAGES if each.path.parent.parent.name != "recipes"):
        fits = [words for words in each.kit() if words[0] == "fit"]
        for words in [*each.kit(), *each.spans()]:
            marks = [pytest.mark.slow] if words in fits[1:] else []
            found.append(pytest.param(each, words, id=" ".join([each.name, *words]), marks=marks))
    return found


@pytest.mark.parametrize(("where", "words"), kit_commands())
def test_every_command_parses(
    where: Page, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *given = words
    assert verb in cli.VERBS, f"{where.name}: no verb {verb}"
    if verb == "fit":
        monkeypatch.chdir(folder_of(where, given))
        asked = [] if "--print_config" in given else ["--print_config"]
        assert cli.main(["fit", *given, *asked]) == 0, capsys.readouterr().err  # all is parsed, nothing is run
        return
    function, options = cli.VERBS[verb]
    home, _, kind = (options or "").rpartition(".")
    options_kind = getattr(import_module(f"audiolm_kit.{home}"), kind) if options else None
    arguments.parser_of(function, f"audiolm-kit {verb}", options_kind).parse_args(given)


def folder_of(where: Page, given: list[str]) -> Path:
    """The folder that a `fit` is given in: the repository, the recipe, or the one of docs/many_gpus.md."""
    recipe = given[given.index("-c") + 1]
    for folder in (ROOT, where.path.parent, ROOT / "recipes" / "audiogen"):
        if (folder / recipe).is_file():
            return folder
    raise AssertionError(f"{where.name}: no recipe {recipe}")


def test_every_make_names_a_target_that_there_is() -> None:
    shared = "".join(path.read_text() for path in ROOT.glob("recipes/*.mk"))
    for each in PAGES:
        for words in (words[1:] for words in each.commands() if words[0] == "make"):
            named = ROOT / words[words.index("-C") + 1] if "-C" in words else each.path.parent
            folder = named if (named / "Makefile").is_file() else ROOT
            rules = (folder / "Makefile").read_text() + ("" if folder == ROOT else shared)
            heads = re.findall(r"^(?:\.PHONY: .*|[\w ./-]+(?=:))", rules, re.MULTILINE)
            targets = {word for word in words if re.fullmatch(r"[a-z][\w-]*", word)}
            assert targets <= set(" ".join(heads).split()), f"{each.name}: make {' '.join(words)}"


def test_every_script_is_there_and_has_the_options_that_it_is_given() -> None:
    called = [(each, words[1:]) for each in PAGES for words in each.commands() if words[0].endswith("python")]
    assert len(called) >= 5
    for each, (script, *given) in called:
        text = (ROOT / script).read_text(encoding="utf-8")
        options = [word for word in given if word.startswith("--")]
        if "add_argument" in text:  # else they are a function's parameters
            assert [option for option in options if option.lstrip("-") not in text] == [], f"{each.name}: {script}"


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", PAGES, ids=lambda each: each.name)
def test_every_link_leads_somewhere(where: Page) -> None:
    for link in where.links():
        if link.startswith("http"):  # which a test cannot follow
            assert re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{5}", link), f"{where.name}: {link}"
            continue
        path, _, anchor = link.partition("#")
        target = (where.path.parent / path).resolve() if path else where.path
        assert target.is_file(), f"{where.name}: {link} is not there"
        assert target.is_relative_to(ROOT), f"{where.name}: {link} leads out of the repository"
        assert not anchor or anchor in Page(target).anchors(), f"{where.name}: {link} is no heading there"


# --- Python -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [each for each in PAGES if each.blocks("python")], ids=lambda each: each.name)
def test_what_python_imports_from_us_is_there(where: Page) -> None:
    for code in where.blocks("python"):
        for node in ast.walk(ast.parse(code, where.name)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("audiolm_kit"):
                home = import_module(node.module or "")
                for name in (alias.name for alias in node.names):
                    submodule = ROOT / (node.module or "").replace(".", "/") / f"{name}.py"
                    assert hasattr(home, name) or submodule.is_file(), f"{where.name}: {node.module} has no {name}"
    assert where.name in (*RUN, *RUN_ALSO, *RUN_ELSEWHERE), f"{where.name}: nothing runs its Python"


def a_codec(sample_rate: int = 16000) -> NeuralCodec:
    """Random and as small as codecs get, at 50 frames a second, with the demo's codebooks."""
    body = ConvNeXtConfig(
        dim=8, width=8, encoder_layers=1, decoder_layers=1, hop=sample_rate // 100, fft_size=320, frames_per_code=2
    )
    quantizer = QuantizerConfig(num_codebooks=4, codebook_size=16, dim=8)
    return NeuralCodec(CodecConfig(sample_rate=sample_rate, convnext=body, quantizer=quantizer))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages open, small and random, in a folder like the repository."""
    folder = tmp_path_factory.mktemp("pages")
    torch.manual_seed(0)
    vocabulary = train(["a high bell rings", "heavy rain falls"], folder / "text.model", size=30)
    text = TextConfig(kind="small", dim=8, layers=1, heads=1, pieces=vocabulary.size)
    transformer = TransformerConfig(dim=8, heads=1, layers=1, cross_attention=True)
    lm = StreamLM(LMConfig(num_codebooks=4, codebook_size=16, transformer=transformer, text=text))
    model = AudioGen(a_codec(), lm, TextConditioner(text, vocabulary))
    for name in ("hello/lm", "mine/lm", "finetune/base"):
        model.save(folder / "build" / name)
    checkpoint.save(model.codec, folder / "build/hello/codec")
    checkpoint.save(a_codec(24000), folder / "build/encodec_24khz")
    audio.write(folder / "bell.wav", audio.Sound(0.1 * torch.randn(1, 16000), 16000))
    return folder


@pytest.mark.filterwarnings("ignore:.*is clipped.*")  # an untrained codec knows no bounds
@pytest.mark.parametrize("name", [*RUN, *RUN_ALSO])
def test_the_python_runs_as_it_stands(
    name: str, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    names: dict[str, Any] = {}
    for code in page(name).blocks("python"):
        exec(compile(code, name, "exec"), names)
    told = capsys.readouterr().out
    if name == "docs/tutorial.md":
        assert [audio.info(f"take{number}.wav").duration for number in range(3)] == [2, 2, 2]
    if name == "docs/papers/codecs.md":
        assert all(Path(f"bell{count}.wav").is_file() for count in (1, 2, 3, 4))
    if name == "docs/papers/audiogen.md":
        assert "[ 0,  5,  6,  7,  8,  0]" in told
    if name == "docs/streaming.md":
        assert names["sound"].shape[-1] == 50 * names["model"].codec.config.hop
        assert names["codes"].shape == (1, 4, 50)


# --- the tutorial -----------------------------------------------------------------------------------------------------

SMALLER = {"--count": "52"}
SHORTER = ["--trainer.max_steps", "2", "--data.batch_size", "2"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # few sounds, and two steps
def test_the_tutorial_leads_from_sounds_to_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    for name in ("recipes", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    install, *commands = page("docs/tutorial.md").commands()
    assert install == ["make", "install"]
    for program, *words in commands:
        given = [SMALLER.get(before, word) for before, word in zip(["", *words], words, strict=False)]
        if program == "python":
            monkeypatch.setattr(sys, "argv", given)
            runpy.run_path(given[0], run_name="__main__")
            continue
        if given[0] == "fit" and "recipes/hello/lm.yaml" in given:
            given += SHORTER
        if "build/mine/listen/generated" in given and given[0] == "generate":
            given += Path("build/mine/listen/texts.txt").read_text(encoding="utf-8").splitlines()  # which xargs adds
        fine = (0, 2) if given[0] == "doctor" else (0,)  # two steps teach nothing, and that is found out
        assert cli.main(given) in fine, given
    assert audio.info("longer.wav").duration == 4
    for made in ("report/report.html", "page/index.html", "listen/reconstruction/1.wav"):
        assert (tmp_path / "build/mine" / made).is_file()
