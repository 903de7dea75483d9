"""Tables of the benchmark: what was reached of what is wanted, and what each stored file has of a section."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bench_cases
import bench_decode
import bench_limits
import bench_table
import pytest
from bench_cases import Least, Row

ROOT = Path(__file__).parents[2]


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


def test_every_target_names_rows_that_a_benchmark_has() -> None:
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


def test_limits_are_the_best_that_was_seen() -> None:
    reads = {"section": "limits", "kind": bench_limits.READS, "unit": "GB/s", "work": 10}
    rows = [row("m", "sum", (5.0, 2.0), **reads), row("m", "bf16 matrix x vector", (1.0,), **reads)]
    rows += [row("m", "fp32", (2.0,), **{**reads, "kind": bench_limits.PRODUCTS}), row("m", "bf16", (), **reads)]
    assert bench_limits.best(rows) == {"reads": 10.0, "fp32": 5.0}


def test_a_section_is_shown_from_the_file_that_measured_it(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(content(row(times=(0.02, 0.03)))))
    text = bench_table.shown(file, "decode")
    assert text.startswith("`bench.json`: 2 cores of some processor (AVX2), 2 threads; torch 2.13; commit `abc`, 2026-")
    assert "| batch 1 | audiolm_kit | fp32 | 25 ms a frame | 20 to 30 |" in text
    assert bench_table.shown(file, "codec") == ""


def test_a_file_of_something_else_and_an_unknown_section_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text("{}")
    with pytest.raises(ValueError, match="is no file of `make bench`"):
        bench_table.shown(file, "decode")
    with pytest.raises(ValueError, match="bench singing is no section: give one of decode, "):
        bench_table.shown(file, "singing")


def test_every_section_has_its_place_in_the_page() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert {f"<!-- bench {section} -->" for section in bench_table.SECTIONS} <= set(page.splitlines())
