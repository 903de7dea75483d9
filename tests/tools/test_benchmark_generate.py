"""The benchmark: what is compared does the same work, takes turns, and is told in a table and as JSON."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

TOOL = Path(__file__).parents[2] / "tools" / "benchmark_generate.py"
SMALL = ["--dim", "8", "--heads", "1", "--layers", "1", "--codebook_size", "16", "--frames", "6", "--filters", "2"]
SMALL += ["--batches", "1", "2", "--seconds", "0.05", "--repeats", "2"]


def load_tool() -> ModuleType:
    """The tool as a module: tools/ is a folder of scripts, no package."""
    spec = importlib.util.spec_from_file_location("benchmark_generate", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_generate"] = module
    spec.loader.exec_module(module)
    return module


tool = load_tool()


def num_weights(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("batch", [1, 2])
def test_both_models_draw_as_many_codes_in_as_many_steps(batch: int, scale: float) -> None:
    sizes, _ = tool.sizes_of(SMALL)
    ours, theirs, context = tool.our_lm(sizes), tool.their_lm(sizes), tool.some_context(sizes, batch)
    rows: dict[str, list[int]] = {"ours": [], "theirs": []}
    ours.transformer.register_forward_pre_hook(lambda _, given: rows["ours"].append(len(given[0])))
    layer = theirs.model.decoder.layers[0]
    layer.register_forward_pre_hook(lambda _, given: rows["theirs"].append(len(given[0])))
    for name, codes in (
        ("ours", tool.our_codes(ours, sizes, context, scale)),
        ("theirs", tool.their_codes(theirs, sizes, context, scale)),
    ):
        assert codes.shape == (batch, 4, 6) and codes.dtype == torch.long
        assert 0 <= int(codes.min()) and int(codes.max()) < 16
        assert rows[name] == [batch * (1 if scale == 1 else 2)] * (6 + 3), name  # the delay of four codebooks adds 3
    assert num_weights(theirs) == num_weights(ours)


def test_cases_take_turns_and_the_first_round_is_not_counted() -> None:
    now, ran = [0.0], []

    def taking(name: str, *seconds: float) -> object:
        left = list(seconds)

        def run() -> None:
            ran.append(name)
            now[0] += left.pop(0)

        return run

    listed = [
        tool.Case("sing", tool.OURS, taking("a", 9.0, 1.0, 5.0, 2.0), 100, 4.0),
        tool.Case("sing", "others", taking("b", 9.0, 3.0, 4.0, 50.0), 100, 4.0),
    ]
    ours, theirs = tool.measured(listed, repeats=3, clock=lambda: now[0])
    assert ran == ["a", "b"] * 4
    assert (ours.median, ours.times, ours.frames_per_second, ours.real_time_factor) == (2.0, [1.0, 5.0, 2.0], 50, 0.5)
    assert (theirs.median, theirs.of_ours) == (4.0, 2.0)
    assert tool.table([theirs]).splitlines()[-1] == "| sing | others | 4.0000 | 25 | 1.0000 | 2.00 x |"


def test_the_benchmark_writes_a_table_and_every_single_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool.main([*SMALL, "-o", str(tmp_path / "bench.json")])
    told, written = capsys.readouterr().out, json.loads((tmp_path / "bench.json").read_text())
    timings = written["timings"]
    tasks = [each["task"] for each in timings]
    assert {task.split()[0] for task in tasks} == {"generate", "training", "encode", "decode"}
    assert sum(task.startswith("generate") for task in tasks) == 2 * 2 * 2  # batches, guidance, ours and theirs
    assert {task for task in tasks if "SEANet" in task} == {"encode 0.05 s, SEANet", "decode 0.05 s, SEANet"}
    assert all(len(each["times"]) == 2 and each["median"] > 0 for each in timings)
    assert written["hardware"] in told and f"torch {torch.__version__}" in told
    assert told.count("\n| ") == 1 + len(timings)
    assert written["sizes"]["batches"] == [1, 2]


def test_without_encodec_the_codec_is_timed_alone_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("the encodec package is not installed", name="encodec")

    monkeypatch.setattr(tool, "import_encodec", missing)
    sizes, _ = tool.sizes_of(SMALL)
    with pytest.warns(UserWarning, match="nothing to compare the codec with"):
        listed = list(tool.codec_cases(sizes))
    assert {case.by for case in listed} == {tool.OURS}
    assert len(listed) == 4


def test_encodecs_codec_and_ours_have_the_same_weights() -> None:
    sizes, _ = tool.sizes_of(SMALL)
    made = {(body, by): codec for body, by, codec in tool.codecs(sizes)}
    if ("SEANet", "encodec") not in made:
        pytest.skip("encodec is not installed")
    audio = 0.1 * torch.randn(1, 1, 1200, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        [(theirs, _)] = made["SEANet", "encodec"].encode(audio)
    assert torch.equal(made["SEANet", tool.OURS].encode(audio), theirs)
