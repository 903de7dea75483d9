"""The benchmark: what is compared does the same work and takes turns; a run writes every single time."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import bench_cases
import bench_codec
import bench_decode
import bench_models
import bench_processes
import bench_table
import bench_training
import benchmark
import pytest
import torch
from bench_cases import Check, Contender, Group, Least, Sizes

ROOT = Path(__file__).parents[2]
SMALL = ["--dim", "16", "--heads", "2", "--layers", "2", "--codebook_size", "16", "--context", "3", "--text_dim", "8"]
SMALL += ["--frames", "5", "--batch", "2", "--early", "3", "--late", "9", "--seconds", "0.3", "--filters", "4"]
SMALL += ["--train_dim", "16", "--train_heads", "2", "--train_layers", "1", "--train_batch", "2", "--train_frames", "6"]
SMALL += ["--buffer", "1", "--matrix", "32", "--repeats", "2", "--device", "cpu", "--emulated"]


@pytest.fixture(scope="module")
def sizes() -> Sizes:
    return benchmark.order_of(SMALL).sizes


def written(path: Path, *more: str) -> dict[str, Any]:
    """What a run of the command line leaves behind; nobody did other work than ours."""
    assert benchmark.main([*SMALL, "-o", str(path), *more]) == 0
    content: dict[str, Any] = json.loads(path.read_text())
    return content


# --- the same work ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(sizes: Sizes) -> bench_decode.Models:
    return bench_decode.Models(sizes)


def test_transformers_with_our_weights_takes_the_very_same_greedy_codes(models: bench_decode.Models) -> None:
    _, transformers, _ = models.loops
    check = bench_decode.same_codes(models, transformers)
    assert check == Check(True, f"{4 * bench_decode.GREEDY} greedy codes equal ours")


def test_audiocraft_with_our_weights_takes_the_very_same_greedy_codes(models: bench_decode.Models) -> None:
    pytest.importorskip("audiocraft", reason="audiocraft is not installed: it needs an environment of its own")
    assert bench_decode.same_codes(models, models.loops[2]).equal


@pytest.mark.parametrize("known", [0, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_everybody_makes_as_many_frames_in_as_many_steps(models: bench_decode.Models, batch: int, known: int) -> None:
    request = bench_models.asked(models.sizes, batch, 5, known)
    ours, theirs = models.ours("fp32"), models.transformers("fp32")
    steps = {"ours": 0, "theirs": 0}

    def counting(name: str) -> Callable[..., None]:
        def count(*_: Any) -> None:
            steps[name] += 1

        return count

    hooks = [
        ours.heads.register_forward_hook(counting("ours")),
        theirs.decoder.lm_heads[0].register_forward_hook(counting("theirs")),
    ]
    made = bench_models.our_codes(ours, request), bench_models.transformers_codes(theirs, request)
    for hook in hooks:
        hook.remove()
    assert [codes.shape for codes in made] == [(batch, 4, 5)] * 2
    assert all(0 <= int(codes.min()) and int(codes.max()) < 16 for codes in made)
    assert steps == {"ours": request.num_steps, "theirs": request.num_steps} and request.num_steps == 5 + 3


def test_frames_behind_a_prompt_are_timed_one_by_one(models: bench_decode.Models) -> None:
    request = bench_models.asked(models.sizes, 1, 7, known=9)
    ours = bench_models.our_frame_seconds(models.ours("fp32"), request, "cpu")
    theirs = bench_models.transformers_frame_seconds(models.transformers("fp32"), request, "cpu")
    assert len(ours) == len(theirs) == 6 and min(ours + theirs) > 0


def test_other_codes_are_not_equal_and_the_first_frame_is_named(models: bench_decode.Models) -> None:
    def others(model: Any, request: Any) -> torch.Tensor:
        codes = models.greedy().clone()
        codes[0, 2, 4:] = (codes[0, 2, 4:] + 1) % 16
        return codes

    loop = models.loops[1]._replace(codes=others)
    assert bench_decode.same_codes(models, loop) == Check(False, "not equal: greedy codes are others from frame 4 on")


def test_a_variant_whose_logits_are_far_off_is_not_equal(
    models: bench_decode.Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = bench_decode.near_logits(models, "bf16")
    assert near.equal and 0 < float(near.told.split()[3]) < 5  # per cent
    monkeypatch.setattr(models, "logits", lambda option: models._logits("fp32") * (1 if option == "fp32" else -1))
    assert not bench_decode.near_logits(models, "bf16").equal


@pytest.mark.slow
def test_compiled_steps_are_ours_too(models: bench_decode.Models) -> None:
    check = bench_decode.near_logits(models, "fp32, compiled")
    assert check.equal and float(check.told.split()[3]) < 0.01


def test_codecs_of_the_same_weights_give_the_same_codes_and_sound(sizes: Sizes) -> None:
    codec = bench_codec.our_codec(sizes)
    audio, (encode, back) = bench_codec.sound(sizes), bench_codec.our_pair(codec)
    codes = encode(audio)
    assert codes.shape == (1, 8, 23) and len(codes.unique()) > 50  # random as they are, the entries are all in reach
    for pair in others_of(codec):
        assert bench_codec.same_codes(codes, pair[0](audio)).equal
        assert bench_codec.same_sound(back(codes), pair[1](codes)).equal


def others_of(codec: Any) -> Iterator[bench_codec.Codec]:
    yield bench_codec.transformers_pair(codec)
    try:
        yield bench_codec.encodec_pair(codec)
    except bench_cases.Unavailable:
        return


def test_codes_and_sounds_that_differ_are_not_equal() -> None:
    codes, audio = torch.zeros(1, 2, 3, dtype=torch.long), torch.ones(1, 1, 4)
    assert bench_codec.same_codes(codes, codes + 1) == Check(False, "not equal: 0 of 6 codes equal ours")
    assert not bench_codec.same_codes(codes, codes[..., 1:]).equal
    assert not bench_codec.same_sound(audio, audio * 1.01).equal and bench_codec.same_sound(audio, audio).equal


def test_audiocraft_thinks_the_same_of_a_batch(sizes: Sizes) -> None:
    pytest.importorskip("audiocraft", reason="audiocraft is not installed: it needs an environment of its own")
    ours = bench_training.first_loss(lambda: bench_training.ours(sizes))
    theirs = partial(bench_training.audiocrafts, sizes)
    assert bench_training.same_loss(lambda: ours, partial(theirs, whole=True)).equal
    assert bench_training.stepping(theirs, "fp32", "cpu")() > 0


def test_transformers_thinks_the_same_of_a_batch_and_every_step_learns(sizes: Sizes) -> None:
    ours = bench_training.first_loss(lambda: bench_training.ours(sizes))
    check = bench_training.same_loss(lambda: ours, lambda: bench_training.transformers_(sizes))
    assert check.equal and check.told == f"first loss {ours:.4f}, ours {ours:.4f}"
    assert not bench_training.same_loss(lambda: ours * 1.1, lambda: bench_training.transformers_(sizes)).equal
    for made in (bench_training.ours, bench_training.transformers_):
        learner = made(sizes)
        run = bench_training.stepping(lambda learner=learner: learner, "fp32", "cpu")
        assert run() > 0
        assert float(learner.loss().detach()) < ours


# --- turns ------------------------------------------------------------------------------------------------------------


def taking(name: str, ran: list[str], *seconds: float) -> Callable[[], bench_cases.Run]:
    left = list(seconds)

    def run() -> float:
        ran.append(name)
        return left.pop(0)

    return lambda: run


def test_contenders_take_turns_and_the_rehearsal_is_not_counted() -> None:
    ran: list[str] = []
    contenders = [
        Contender("a", "fp32", taking("a", ran, 9.0, 1.0, 5.0, 2.0), check=lambda: Check(True, "as ours")),
        Contender("b", "fp32", taking("b", ran, 9.0, 3.0, 4.0, 50.0), Least(1.0, 2.0, "fp32")),
    ]
    first, second = bench_cases.compared(Group("decode", "kind", "task", "s", 1, contenders), repeats=3)
    assert ran == ["a", "b"] * 4
    assert (first.times, first.median, first.equal, first.note) == ([1.0, 5.0, 2.0], 2.0, True, "as ours")
    assert (second.times, second.least, second.equal) == ([3.0, 4.0, 50.0], (1.0, 2.0, "fp32"), None)


def test_bf16_is_left_out_where_it_is_emulated_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """There it takes minutes for a frame; whoever wants to wait says so."""
    plain = [word for word in SMALL if word != "--emulated"]
    for emulates in (True, False):
        monkeypatch.setattr(benchmark, "emulated", lambda emulates=emulates: emulates)
        told = [benchmark.order_of(plain).left_out(option) for option in ("fp32", "int8", "int8, bf16", "bf16")]
        assert [bool(each) for each in told] == [False, False, emulates, emulates]
        assert benchmark.order_of(SMALL).left_out("bf16") == ""
    ran: list[str] = []
    contenders = [Contender("a", "bf16", taking("a", ran)), Contender("b", "fp32", taking("b", ran, 9.0, 1.0))]
    group = Group("decode", "kind", "task", "s", 1, contenders)
    rows = bench_cases.compared(group, repeats=1, left_out=lambda option: "not here" if option == "bf16" else "")
    assert [(row.by, row.times, row.missing) for row in rows] == [("a", [], "not here"), ("b", [1.0], "")]


def test_what_is_not_there_is_said_and_the_others_go_on() -> None:
    def missing() -> bench_cases.Run:
        raise bench_cases.Unavailable("audiocraft is not installed")

    def broken() -> float:
        raise RuntimeError("no kernel\nfor this")

    ran: list[str] = []
    contenders = [
        Contender("a", "fp32", missing),
        Contender("b", "int4", lambda: broken),
        Contender("c", "fp32", taking("c", ran, 9.0, 1.0)),
    ]
    group = Group("decode", "kind", "task", "s", 1, contenders)
    rows = bench_cases.compared(group, repeats=1)
    assert [row.missing for row in rows] == ["audiocraft is not installed", "RuntimeError: no kernel", ""]
    assert [row.times for row in rows] == [[], [], [1.0]]


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_run_writes_every_single_time_and_prints_its_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_decode, "COMPILED", {"cpu": ()})  # it takes longer than all the rest
    found = written(tmp_path / "bench.json", "--only", "decode,codec,training")
    told = capsys.readouterr().out
    rows = bench_table.rows_of(found)
    assert {row.section for row in rows} == {"decode", "codec", "training", "limits"}
    measured = [row for row in rows if row.times]
    ours = {(row.kind, row.option) for row in measured if row.by == bench_cases.OURS}
    assert ours >= {("decode.one", "fp32"), ("decode.batch", "bf16"), ("decode.first", "fp32"), ("decode.late", "fp32")}
    assert ours >= {("codec.encode", "fp32"), ("codec.decode", "fp32, as a stream"), ("training", "bf16")}
    assert all(len(row.times) in (1, 2) and min(row.times) > 0 for row in measured)
    assert all(row.missing for row in rows if not row.times)
    equal = {(row.kind, row.by) for row in measured if row.equal}
    assert equal >= {(kind, "transformers") for kind in ("decode.one", "codec.encode", "codec.decode", "training")}
    assert found["about"]["sizes"]["layers"] == 2 and found["about"]["versions"]["torch"] == torch.__version__
    assert found["limits"].keys() >= {"reads", "fp32", "bf16"}
    assert {each["told"] for each in found["targets"]} >= {"decoding in fp32", "a training step"}
    for section in ("Decode", "Codec", "Training", "Limits"):
        assert f"**{section}**" in told
    assert benchmark.main(["--table", str(tmp_path / "bench.json")]) == 0
    assert capsys.readouterr().out == told
    assert not list(tmp_path.glob(".*"))


def test_the_run_fails_where_somebody_did_other_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unlike = Contender("others", "fp32", taking("others", [], 9.0, 1.0, 1.0), check=lambda: Check(False, "not equal"))
    monkeypatch.setattr(bench_codec, "groups", lambda sizes: iter([Group("codec", "kind", "task", "s", 1, [unlike])]))
    assert benchmark.main([*SMALL, "--only", "codec", "-o", str(tmp_path / "bench.json")]) == 1
    assert "task: others fp32: not equal" in capsys.readouterr().err
    assert json.loads((tmp_path / "bench.json").read_text())["rows"][0]["equal"] is False


def test_start_up_is_measured_in_processes_of_their_own(sizes: Sizes) -> None:
    helped, imports = bench_processes.startup(sizes)
    assert [contender.by for contender in helped.contenders] == [bench_cases.OURS, "python"]
    seconds = imports.contenders[0].make()()
    assert 0 < seconds < helped.contenders[0].make()()


@pytest.mark.slow
def test_memory_is_that_of_a_process_that_decodes(sizes: Sizes) -> None:
    [group] = bench_processes.memory(replace(sizes, layers=1))
    rows = bench_cases.compared(group, repeats=1)
    held = {f"{row.by} {row.option}": row.times for row in rows}
    assert held[f"{bench_cases.OURS} fp32"][0] > 50 and held["transformers fp32"][0] > 50


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--only", "decode,singing"], "--only names singing: give some of startup, codec, training, memory, decode"),
        (["--layers", "0"], "layers is 0: give a positive number"),
        (["--table", "nowhere.json"], "nowhere.json"),
        pytest.param(
            ["--device", "cuda"],
            "torch finds no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_what_cannot_be_is_said_in_a_line(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(given) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def test_the_help_names_every_section_and_says_how_long_all_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(["--help"])
    told = capsys.readouterr().out
    assert "10 minutes" in told and all(name in told for name in benchmark.SECTIONS)
    for module, function in benchmark.SECTIONS.values():
        assert callable(getattr(importlib.import_module(module), function))
