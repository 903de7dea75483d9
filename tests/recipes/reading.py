"""A recipe as its tests read it: scripts as modules, YAML files, the README's commands, and what make would do."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml

from audiolm_kit import attention, cli
from audiolm_kit.arguments import parser_of
from audiolm_kit.transformer import Transformer, TransformerConfig

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
HEADINGS = ["What", "Data", "Run", "Results", "Listen"]


def load(recipe: str, name: str) -> ModuleType:
    """A script of a recipe as a module; its siblings are forgotten again, as other recipes have theirs."""
    folder = RECIPES / recipe
    spec = importlib.util.spec_from_file_location(f"{recipe}_{name}", folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(folder))
    known = set(sys.modules)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
        for sibling in {path.stem for path in folder.glob("*.py")} - known:
            sys.modules.pop(sibling, None)
    return module


def content(recipe: str, name: str) -> tuple[dict[str, Any], dict[str, Any], int]:
    """What a YAML file gives to its model and its data, and its number of steps."""
    read = yaml.safe_load((RECIPES / recipe / f"{name}.yaml").read_text(encoding="utf-8"))
    return read["model"]["init_args"], read["data"]["init_args"], read["trainer"]["max_steps"]


# --- pages ------------------------------------------------------------------------------------------------------------


def readme(recipe: str) -> str:
    return (RECIPES / recipe / "README.md").read_text(encoding="utf-8")


def headings(text: str) -> list[str]:
    return re.findall(r"^## (\w+)", text, re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """What follows `audiolm-kit` in every command of a page's blocks."""
    blocks = "\n".join(re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)).replace("\\\n", " ")
    found = [(line, shlex.split(line, comments=True)) for line in blocks.splitlines() if "audiolm" in line]
    named = r"(?:.*/)?audiolm[-_]kit"
    places = [next((i for i, word in enumerate(words) if re.fullmatch(named, word)), None) for _, words in found]
    return [words[place + 1 :] for (_, words), place in zip(found, places, strict=True) if place is not None]


def parse(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Read a command as the command line does, in the working folder."""
    verb, *given = command
    if verb == "fit":
        assert cli.main(["fit", *given, "--print_config"]) == 0, capsys.readouterr().err
        return
    run, options = cli.VERBS[verb]
    parser_of(run, f"audiolm-kit {verb}", cli.options_of(options)).parse_args(given)


# --- make -------------------------------------------------------------------------------------------------------------


def make(recipe: Path | str, *given: str) -> subprocess.CompletedProcess[str]:
    """Make in a recipe's folder, on one thread."""
    folder = RECIPES / recipe if isinstance(recipe, str) else recipe
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(["make", "-C", str(folder), *given], env=environment, capture_output=True, text=True)


def planned(recipe: str, *given: str) -> str:
    """What make would run."""
    done = make(recipe, "-n", "OUT=/nowhere/out", "DATA=/nowhere/data", "BIN=/nowhere/bin", *given)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- sizes ------------------------------------------------------------------------------------------------------------


def kept_by_a_layer(**options: Any) -> float:
    """Bytes that a layer keeps for the way back in half precision, for each step and each unit of width.

    As on a GPU, for which estimates are made: attention of torch's own keeps no weights.
    """
    steps, width = 200, 64
    context = torch.randn(2, 2, width), torch.ones(2, 2, dtype=torch.bool)

    def kept(layers: int) -> int:
        transformer = Transformer(TransformerConfig(dim=width, heads=4, layers=layers, **options)).train()
        weights = list(transformer.parameters())
        own = {weight.untyped_storage().data_ptr() for weight in weights}
        held: list[torch.Tensor] = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: held.append(tensor) or tensor, lambda tensor: tensor
        )
        with hooks, torch.autocast("cpu", torch.bfloat16), patch.object(attention, "KEPT", 0):
            given = torch.randn(2, steps, width, requires_grad=True)
            transformer(given, context if options.get("cross_attention") else None)
        storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in held}
        copies = sum(2 * weight.numel() for weight in weights)  # of the weights, in half precision
        return sum(size for place, size in storages.items() if place not in own) - copies

    return (kept(4) - kept(2)) / 2 / (2 * steps * width)
