"""The benchmark: what is compared does the same work and takes turns; tables say what was reached of what is wanted."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import bench_cases
import bench_codec
import bench_decode
import bench_limits
import bench_models
import bench_processes
import bench_table
import bench_training
import benchmark
import pytest
import torch
from bench_cases import Check, Contender, Group, Least, Row, Sizes

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"
SMALL = ["--dim", "16", "--heads", "2", "--layers", "2", "--codebook_size", "16", "--context", "3", "--text_dim", "8"]
SMALL += ["--frames", "5", "--batch", "2", "--early", "3", "--late", "9", "--seconds", "0.3", "--filters", "4"]
SMALL += ["--train_dim", "16", "--train_heads", "2", "--train_layers", "1", "--train_batch", "2", "--train_frames", "6"]
SMALL += ["--buffer", "1", "--matrix", "32", "--repeats", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def sizes() -> Sizes:
    return benchmark.order_of(SMALL).sizes


def written(path: Path, *more: str) -> dict[str, Any]:
    """What a run of the command line leaves behind; nobody did other work than ours."""
    assert benchmark.main([*SMALL, "-o", str(path), *more]) == 0
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def row(by: str = bench_cases.OURS, option: str = "fp32", times: tuple[float, ...] = (1.0,), **more: Any) -> Row:
    plain: dict[str, Any] = {
        "section": "decode",
        "kind": "decode.one",
        "task": "batch 1",
        "unit": "ms a frame",
        "work": 1,
    }
    return Row(by=by, option=option, times=list(times), **{**plain, **more})


def content(*rows: Row, device: str = "cpu", **limits: float) -> dict[str, Any]:
    """A benchmark's JSON, as it is read back."""
    hardware = {"cpu": "some processor", "cores": 2, "gpu": None, "capability": "AVX2"}
    about = {"device": device, "hardware": hardware, "threads": 2, "commit": "abc", "date": "2026-11-21", "seconds": 61}
    about |= {"versions": {"torch": "2.13", "encodec": None}}
    made = {"about": about, "limits": {"reads": 1.0, **limits}, "rows": [asdict(each) for each in rows]}
    again: dict[str, Any] = json.loads(json.dumps(made))
    return again


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


# --- targets and tables -----------------------------------------------------------------------------------------------


def judged(found: dict[str, Any], told: str) -> bench_table.Judged:
    [each] = [each for each in bench_table.judged(found) if each.target.told == told]
    return each


def test_a_ratio_is_taken_round_by_round_and_is_that_of_the_fastest() -> None:
    found = content(
        row("transformers", "fp32", times=(0.2, 0.9, 0.3)),
        row(option="fp32", times=(0.1, 0.3, 0.2)),
        row(option="fp32, compiled", times=(0.3, 0.4, 0.4)),
    )
    each = judged(found, "decoding in fp32")
    assert each.row is not None and each.row.option == "fp32"
    assert each.reached == 2.0 and each.met  # 2, 3 and 1.5
    assert "2 x transformers fp32 (1.5 to 3)" in bench_table.table(found, "decode")
    assert judged(found, "decoding in bf16").met is None


def test_packed_weights_are_held_against_their_fastest_precision() -> None:
    theirs = [row("transformers", "fp32", times=(0.5,)), row("transformers", "bf16", times=(0.4,))]
    assert judged(content(*theirs, row(option="int4", times=(0.1,))), "decoding in int8 or int4").met is False
    assert judged(content(*theirs, row(option="int8", times=(0.08,))), "decoding in int8 or int4").met is True


def test_who_does_other_work_is_no_measure() -> None:
    theirs = row("transformers", times=(0.2,), equal=False, note="not equal: codes")
    each = judged(content(theirs, row(times=(0.1,))), "decoding in fp32")
    assert each.reached is None and each.met is None
    assert "at least 1.3 x: not comparable" in bench_table.table(content(theirs, row(times=(0.1,))), "decode")


def test_a_step_cannot_be_faster_than_its_reads_or_its_products() -> None:
    limits = {"reads": 100.0, "fp32": 10.0, "bf16": 40.0}
    by_reads = row(times=(4.0,), least=Least(200.0, 10.0, "fp32"))
    by_products = row(times=(4.0,), least=Least(200.0, 30.0, "fp32"))
    packed = row(times=(4.0,), least=Least(50.0, 40.0, "bf16"))
    assert [bench_table.bound(each, limits) for each in (by_reads, by_products, packed)] == [
        (2.0, "reads"),
        (3.0, "fp32 products"),
        (1.0, "bf16 products"),
    ]
    assert bench_table.share_of_limit(by_products, limits) == 0.75
    training = row(section="training", kind="training", times=(4.0,), least=Least(0.0, 100.0, "bf16"))
    assert bench_table.bound(training, {**limits, "sheet": 50.0}) == (2.0, "the data sheet")


def test_targets_are_those_of_the_device() -> None:
    least = Least(0.5e-3, 1.0, "bf16")
    one = row(option="bf16, compiled", times=(0.8e-3,), least=least)
    found = content(one, device="cuda:0", bf16=1e6)
    assert {each.target.device for each in bench_table.judged(found)} == {"cuda"}
    at_most, share = (each for each in bench_table.judged(found) if each.target.told == "decoding on a GPU")
    assert (at_most.reached, at_most.met, share.reached, share.met) == (0.8, True, 0.625, True)
    assert "at most 1: met; at least 60 % of the limit: met" in bench_table.table(found, "decode")


@pytest.mark.parametrize(
    ("unit", "work", "time", "wanted"),
    [
        ("ms a frame", 10, 0.5, 50),
        ("frames/s", 10, 0.5, 20),
        ("s", 1, 0.5, 0.5),
        ("GB/s", 2e9, 0.5, 4),
        ("MiB", 1, 7, 7),
    ],
)
def test_a_time_is_told_in_its_unit(unit: str, work: float, time: float, wanted: float) -> None:
    assert bench_table.value(row(unit=unit, work=work), time) == pytest.approx(wanted)


def test_every_target_names_rows_that_a_benchmark_has(sizes: Sizes) -> None:
    kinds = {
        "decode.one",
        "decode.batch",
        "decode.early",
        "decode.late",
        "decode.first",
        "codec.encode",
        "codec.decode",
    }
    kinds |= {"training", "startup.help", "startup.import"}
    names = {*bench_decode.PLAIN, *(each for some in bench_decode.COMPILED.values() for each in some)}
    names |= {"--help", "import audiolm_kit"}
    for target in bench_table.TARGETS:
        assert target.kind in kinds and names & set(target.options)
        assert bool(target.ratio) + bool(target.at_most) + bool(target.share) == 1
        assert bool(target.ratio) == bool(target.against)


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
        (["--page", "x.md"], "--page wants --table"),
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


def test_limits_are_the_best_that_was_seen() -> None:
    reads = {"section": "limits", "kind": bench_limits.READS, "unit": "GB/s", "work": 10}
    rows = [row("m", "sum", (5.0, 2.0), **reads), row("m", "bf16 matrix x vector", (1.0,), **reads)]
    rows += [row("m", "fp32", (2.0,), **{**reads, "kind": bench_limits.PRODUCTS}), row("m", "bf16", (), **reads)]
    assert bench_limits.best(rows) == {"reads": 10.0, "fp32": 5.0}


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_agrees_with_the_measurements_beside_it() -> None:
    text, files = PAGE.read_text(encoding="utf-8"), sorted(PAGE.parent.glob("bench*.json"))
    told = "python tools/benchmark.py --table docs/bench*.json --page docs/performance.md"
    assert text == bench_table.page(text, files), told if files else "take the figures out: docs/bench.json is missing"


def test_a_page_has_the_tables_of_all_files(tmp_path: Path) -> None:
    page, first, second = (tmp_path / name for name in ("page.md", "bench.json", "bench_gpu.json"))
    page.write_text("# A page\n\n<!-- bench decode -->\nold\n<!-- /bench decode -->\n\nMore.\n")
    first.write_text(json.dumps(content(row(times=(0.02, 0.03)))))
    second.write_text(json.dumps(content(row(times=(0.001,)), device="cuda")))
    assert benchmark.main(["--page", str(page), "--table", str(first), str(second)]) == 0
    text = page.read_text()
    assert "old" not in text and text.endswith("<!-- /bench decode -->\n\nMore.\n")
    assert "`bench.json`: 2 cores of some processor (AVX2), 2 threads; torch 2.13; commit `abc`, 2026-11-21" in text
    assert "| batch 1 | audiolm_kit | fp32 | 25 ms a frame | 20 to 30 |" in text
    assert "`bench_gpu.json`" in text and "1 ms a frame" in text


def test_a_page_without_an_end_and_a_file_of_something_else_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, file = tmp_path / "page.md", tmp_path / "bench.json"
    page.write_text("<!-- bench decode -->\n")
    file.write_text("{}")
    assert benchmark.main(["--page", str(page), "--table", str(file)]) == 2
    assert "is no file of `make bench`" in capsys.readouterr().err
    file.write_text(json.dumps(content(row())))
    assert benchmark.main(["--page", str(page), "--table", str(file)]) == 2
    assert "want a line <!-- /bench decode -->" in capsys.readouterr().err
    assert page.read_text() == "<!-- bench decode -->\n"


def test_the_help_names_every_section_and_says_how_long_all_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(["--help"])
    told = capsys.readouterr().out
    assert "10 minutes" in told and all(name in told for name in benchmark.SECTIONS)
    for module, function in benchmark.SECTIONS.values():
        assert callable(getattr(importlib.import_module(module), function))
