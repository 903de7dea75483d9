"""The house stands as docs/architecture.md says: floors, doors, no circles, empty faces, telling names."""

from __future__ import annotations

import ast
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import audiolm_kit

House = dict[str, str]  # a file's path inside the package -> its source
ROOT = Path(audiolm_kit.__file__).parent
HOUSE: House = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")}

GROUND = (
    *(
        "arguments",
        "attention",
        "audio",
        "captions",
        "checkpoint",
        "compiled",
        "conditioning",
        "eight_bits",
        "frozen_t5",
        "hub",
        "kv_cache",
    ),
    *("layers", "parallel", "positions", "protocols", "provenance", "published", "repeats", "stages", "stepping"),
    *("stored_once", "text", "text_cache", "transformer"),
)
FLOORS = {
    **dict.fromkeys(GROUND, 1),
    **dict.fromkeys(("codec", "semantic", "lm", "diffusion", "data", "evaluation"), 2),
    **dict.fromkeys(("training", "inference", "official", "model_card"), 3),
    **dict.fromkeys(("serving", "doctor"), 4),
    "commands": 5,
    "cli": 6,
    "__main__": 7,
}
DOORS = {
    "soundfile": ("audio.py",),
    "soxr": ("audio.py",),
    "sentencepiece": ("text.py",),
    "datasets": ("data/shards.py",),
    "encodec": ("official/encodec.py",),
    "ray": ("parallel.py",),
    "sklearn": ("semantic/kmeans.py",),
    "huggingface_hub": ("hub.py", "doctor/packages.py"),  # doctor tries whether it loads, transformers too
    "pytorch_lightning": ("training/", "data/modules.py", "commands/training.py"),
    "transformers": (
        "frozen_t5.py",
        "codec/foreign.py",
        "semantic/features.py",
        "evaluation/perceptual.py",
        "official/",
        "doctor/packages.py",
    ),
}
SILENT_NAMES = {"utils", "helpers", "common", "misc", "base", "core"}


def imports(source: str) -> set[str]:
    """Every imported name in full, wherever in the file it stands; `import_module` of a written-out name counts too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)}
    return found


def ours(path: str, house: House) -> set[str]:
    """The files of the package that a file imports; a folder's name stands for its face."""
    files = set()
    for name in imports(house[path]):
        parts = name.split(".")[1:] if name.split(".")[0] == "audiolm_kit" else []
        for end in range(len(parts), 0, -1):
            target = "/".join(parts[:end])
            known = [each for each in (f"{target}.py", f"{target}/__init__.py") if each in house]
            if known:
                files.add(known[0])
                break
    return files


def room(path: str) -> str:
    """The folder, or the file on the top level, that a file belongs to."""
    return path.split("/")[0].removesuffix(".py")


def unplaced(house: House) -> list[str]:
    return sorted({room(path) for path in house} - FLOORS.keys() - {"__init__"})


def sideways(house: House) -> list[str]:
    """Imports that do not run down: allowed are lower floors, the same folder, and ground to ground."""
    wrong = []
    for path in house.keys() - {"__init__.py"}:
        for target in ours(path, house) - {"__init__.py"}:
            here, there = FLOORS[room(path)], FLOORS[room(target)]
            if not (there < here or room(path) == room(target) or here == there == 1):
                wrong.append(f"{path} imports {target}")
    return sorted(wrong)


def relative(house: House) -> list[str]:
    return sorted(path for path, source in house.items() if any(name.startswith(".") for name in imports(source)))


def through_the_wall(house: House) -> list[str]:
    """Foreign packages imported elsewhere than at their door."""
    wrong = []
    for path, source in house.items():
        for package in DOORS.keys() & {name.split(".")[0] for name in imports(source)}:
            if not any(path == door or door.endswith("/") and path.startswith(door) for door in DOORS[package]):
                wrong.append(f"{path} imports {package}")
    return sorted(wrong)


def circles(house: House) -> list[str]:
    try:
        TopologicalSorter({path: ours(path, house) for path in house if path != "__init__.py"}).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def busy_faces(house: House) -> list[str]:
    """Faces that hold more than a docstring; the root face is lazy instead (see below)."""
    faces = [path for path in house if path.endswith("/__init__.py")]
    return sorted(path for path in faces if len(ast.parse(house[path]).body) > 1)


def silent_names(house: House) -> list[str]:
    return sorted(path for path in house if SILENT_NAMES & set(path.removesuffix(".py").split("/")))


LAWS: list[tuple[Callable[[House], list[str]], House]] = [  # each with a small house that breaks it
    (unplaced, {"attic.py": ""}),
    (sideways, {"codec/model.py": "from audiolm_kit.lm.model import StreamLM", "lm/model.py": ""}),
    (sideways, {"audio.py": "import audiolm_kit.codec.rvq", "codec/rvq.py": ""}),
    (sideways, {"training/lm.py": "def f():\n from audiolm_kit import official", "official.py": ""}),
    (relative, {"lm/model.py": "from .pattern import Pattern"}),
    (through_the_wall, {"data/manifest.py": "import soundfile as sf"}),
    (through_the_wall, {"lm/model.py": "def f():\n from pytorch_lightning.callbacks import Callback"}),
    (through_the_wall, {"codec/model.py": "importlib.import_module('encodec')"}),
    (circles, {"lm/a.py": "import audiolm_kit.lm.b", "lm/b.py": "from audiolm_kit.lm import a", "lm/__init__.py": ""}),
    (busy_faces, {"lm/__init__.py": '"""The face."""\nfrom audiolm_kit.lm.model import StreamLM'}),
    (silent_names, {"data/utils.py": ""}),
    (silent_names, {"core/model.py": ""}),
]


@pytest.mark.parametrize("law", dict.fromkeys(law for law, _ in LAWS), ids=lambda law: law.__name__)
def test_the_house_keeps_the_law(law: Callable[[House], list[str]]) -> None:
    assert law(HOUSE) == []


@pytest.mark.parametrize(("law", "broken"), LAWS, ids=lambda value: getattr(value, "__name__", None))
def test_the_law_finds_a_break(law: Callable[[House], list[str]], broken: House) -> None:
    assert law(broken)


def test_every_folder_has_a_face() -> None:
    assert {f"{path.split('/')[0]}/__init__.py" for path in HOUSE if "/" in path} <= HOUSE.keys()


def test_the_plan_lists_the_files_that_stand() -> None:
    plan = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1]
    listed, folder = set(), ""
    for name, indent in ((line.split()[0], len(line) - len(line.lstrip())) for line in plan.splitlines()[2:] if line):
        folder = name if name.endswith("/") else folder if indent > 2 else ""
        listed.add(folder if name == folder else folder + name)
    assert {name for name in listed if name.endswith(".py")} == {
        path for path in HOUSE if not path.endswith("/__init__.py")
    }


def test_importing_the_package_imports_no_house(run_python: Callable[[str], str]) -> None:
    code = (
        "import sys, audiolm_kit; print([name for name in sys.modules if name.startswith(('audiolm_kit.', 'torch'))])"
    )
    assert run_python(code) == "[]"


def test_every_public_name_is_at_its_home() -> None:
    public = [name for name in dir(audiolm_kit) if not name.startswith("_")]
    assert {"AudioGen", "NeuralCodec", "StreamLM", "Sound", "Sampling"} <= set(public)
    assert [getattr(audiolm_kit, name).__name__ for name in public] == public


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = audiolm_kit.Nothing


def test_listening_needs_no_lightning(run_python: Callable[[str], str]) -> None:
    code = "import sys; from audiolm_kit import AudioGen; print('pytorch_lightning' in sys.modules)"
    assert run_python(code) == "False"
