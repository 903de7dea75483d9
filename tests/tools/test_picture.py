"""tools/picture.py draws what it is given, and refuses what it cannot."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from audiolm_kit.audio import Sound, write

TOOL = Path(__file__).parents[2] / "tools" / "picture.py"


@pytest.fixture(scope="module")
def picture() -> ModuleType:
    spec = importlib.util.spec_from_file_location("picture", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_items(folder: Path, roles: tuple[str, ...]) -> Path:
    entries = []
    for number, text in enumerate(["a low tone", "a high tone"]):
        for role in roles:
            tone = torch.sin(torch.arange(4000) * 0.1 * (number + 1))[None] * 0.5
            write(folder / f"{role}{number}.wav", Sound(tone, 8000))
            entries.append({"path": f"{role}{number}.wav", "text": text, "role": role})
    (folder / "listen.json").write_text(json.dumps(entries))
    return folder / "listen.json"


def test_a_grid_of_all_roles_becomes_a_png_that_grows_with_its_columns(picture: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    items = write_items(tmp_path, picture.ROLES)
    for columns in (1, 2):
        picture.main([str(items), "-o", str(tmp_path / f"{columns}.png"), "--columns", str(columns)])
    narrow, wide = imread(tmp_path / "1.png"), imread(tmp_path / "2.png")
    assert wide.shape[1] == pytest.approx(2 * narrow.shape[1], abs=2)
    assert wide[..., :3].std() > 0.05


def test_items_without_generations_are_refused_in_one_line(
    picture: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = write_items(tmp_path, ("real",))
    with pytest.raises(SystemExit) as stop:
        picture.main([str(items), "-o", str(tmp_path / "none.png")])
    assert stop.value.code == 2
    assert "generated" in capsys.readouterr().err
    assert not (tmp_path / "none.png").exists()
