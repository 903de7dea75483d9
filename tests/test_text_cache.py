"""Text states on disk: exact, written by many at once, never broken by a killed writer."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiolm_kit import text_cache
from audiolm_kit.text_cache import TextCache


def states(seed: int, length: int = 3, width: int = 4) -> Tensor:
    return torch.randn(length, width, generator=torch.Generator().manual_seed(seed))


def some(*captions: str) -> dict[str, Tensor]:
    """Captions with states of lengths of their own."""
    return {caption: states(place, 1 + place % 5) for place, caption in enumerate(captions)}


def test_what_was_put_comes_back_bit_by_bit_in_this_process_and_in_another(tmp_path: Path) -> None:
    cache = TextCache(tmp_path, 4)
    odd = torch.tensor([[1e-42, -0.0, 3.4e38, 1 / 3]])  # subnormal, negative zero, close to overflow
    put = some("a dog", "ein Hund — é", "日本", " a dog ", "") | {"odd": odd}
    cache.put(put)
    for reader in (cache, TextCache(tmp_path, 4)):
        assert len(reader) == 6
        for caption, each in put.items():
            assert torch.equal(reader.get(caption).view(torch.int32), each.view(torch.int32))


def test_missing_names_each_once_in_order_and_sees_what_others_wrote(tmp_path: Path) -> None:
    one, other = TextCache(tmp_path, 4), TextCache(tmp_path, 4)
    assert one.missing(["b", "a", "b"]) == ["b", "a"]
    other.put(some("a"))
    assert one.missing(["b", "a", "b"]) == ["b"]
    assert torch.equal(one.get("a"), other.get("a"))


def test_many_captions_are_few_files(tmp_path: Path) -> None:
    cache = TextCache(tmp_path, 4)
    cache.put(some(*map(str, range(500))))
    cache.put({})
    assert len(list(tmp_path.iterdir())) == 1
    assert TextCache(tmp_path, 4).missing(map(str, range(501))) == ["500"]


def test_of_two_packs_with_one_caption_the_earlier_counts_for_every_reader(tmp_path: Path) -> None:
    one, other = TextCache(tmp_path, 4), TextCache(tmp_path, 4)
    other._look()
    one.put({"a": states(1)})
    other.put({"a": states(2), "b": states(3)})
    for reader in (one, other, TextCache(tmp_path, 4)):
        assert torch.equal(reader.get("a"), states(1))
    assert torch.equal(one.get("b"), states(3))
    with pytest.raises(KeyError, match="c"):
        one.get("c")


def write(folder: Path, first: int, last: int) -> None:
    cache = TextCache(folder, 4)
    for place in range(first, last):
        cache.put({f"{place} {each}": torch.full((2, 4), float(place)) for each in range(3)})


def test_processes_that_write_at_once_lose_nothing_and_a_killed_one_breaks_nothing(tmp_path: Path) -> None:
    context, cache = multiprocessing.get_context("fork"), TextCache(tmp_path, 4)
    ranges = [(tmp_path, 0, 20), (tmp_path, 10, 30), (tmp_path, 100, 10**6)]
    whole, other, killed = (context.Process(target=write, args=each) for each in ranges)
    for each in (killed, whole, other):
        each.start()
    while cache.missing(["102 0"]) and killed.is_alive():
        time.sleep(0.01)
    killed.kill()
    for each in (whole, other, killed):
        each.join()
    assert (whole.exitcode, other.exitcode, killed.exitcode) == (0, 0, -signal.SIGKILL)
    for reader in (cache, TextCache(tmp_path, 4)):
        for place in [*range(30), 100, 101, 102]:
            for number in range(3):
                assert torch.equal(reader.get(f"{place} {number}"), torch.full((2, 4), float(place)))


def test_what_a_killed_process_left_is_swept_away_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / ".1-a.safetensors.x7"
    left.mkdir()
    (left / "1-a.safetensors").write_bytes(b"half")
    assert len(TextCache(tmp_path, 4)) == 0 and left.exists()
    os.utime(left, (0, time.time() - text_cache.ABANDONED - 1))
    assert len(TextCache(tmp_path, 4)) == 0 and not left.exists()


def test_what_another_process_finishes_while_the_folder_is_opened_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / ".1-a.safetensors.x7"  # listed, and then no longer there
    listed = Path.glob
    monkeypatch.setattr(Path, "glob", lambda folder, form: [gone] if form.startswith(".") else listed(folder, form))
    assert len(TextCache(tmp_path, 4)) == 0


@pytest.mark.parametrize("keep", [0, 5, 40, -1, -30])
def test_a_cut_off_pack_is_named_with_what_to_do(keep: int, tmp_path: Path) -> None:
    TextCache(tmp_path, 4).put(some("a", "b"))
    [pack] = tmp_path.iterdir()
    pack.write_bytes(pack.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"is no pack of text states.*delete it, what it held is made again") as told:
        TextCache(tmp_path, 4).missing(["a"])
    assert "\n" not in str(told.value)


def test_states_of_another_width_are_refused(tmp_path: Path) -> None:
    TextCache(tmp_path, 4).put(some("a"))
    with pytest.raises(ValueError, match="holds states 4 wide, wanted 5: give another cache folder"):
        TextCache(tmp_path, 5).missing(["a"])
