"""Starting up is quick because nothing is imported that is not asked for: told by what is loaded, not by the clock."""

from __future__ import annotations

from collections.abc import Callable

LOADED = (
    "import sys; before = set(sys.modules); {}; "
    "new = {{name.split('.')[0] for name in set(sys.modules) - before}}; "
    "print(sorted(new - sys.stdlib_module_names))"
)


def test_the_package_loads_nothing_but_itself(run_python: Callable[[str], str]) -> None:
    assert run_python(LOADED.format("import audiolm_kit")) == "['audiolm_kit']"


def test_its_help_loads_nothing_but_itself(run_python: Callable[[str], str]) -> None:
    told = run_python(LOADED.format("from audiolm_kit.cli import main; main(['--help'])"))
    assert told.startswith("usage: audiolm-kit") and told.splitlines()[-1] == "['audiolm_kit']"


def test_an_unknown_verb_is_refused_without_loading_anything(run_python: Callable[[str], str]) -> None:
    assert (
        run_python(LOADED.format("from audiolm_kit.cli import main; assert main(['sing']) == 2")) == "['audiolm_kit']"
    )
