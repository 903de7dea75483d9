"""Plans: read from YAML in layers; one line for what none has."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiolm_kit.evaluation.plan import Model, Plan, read_plan, suggested

WHOLE = """
signal: [si_sdr, stoi]
codes: true
distances: [kernel]
embedders:
  - {kind: codec, pool: mean_std}
  - {kind: ssl, name: some/wavlm, layer: 9}
classifiers:
  - {kind: function, name: "package.module:classify"}
recalls: [1, 3]
voices: [{kind: voice, name: some/wavlm-sv}]
voice_of: prompt
draws: 200
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_plan_is_what_its_file_says_and_defaults_else(tmp_path: Path) -> None:
    found = read_plan([write(tmp_path / "plan.yaml", WHOLE)])
    assert found == Plan(
        signal=("si_sdr", "stoi"),
        codes=True,
        distances=("kernel",),
        embedders=(Model("codec", pool="mean_std"), Model("ssl", "some/wavlm", layer=9)),
        classifiers=(Model("function", "package.module:classify"),),
        recalls=(1, 3),
        voices=(Model("voice", "some/wavlm-sv"),),
        voice_of="prompt",
        draws=200,
    )
    assert found.wants_pairs and found.wants_codec and not found.is_empty


def test_a_later_file_says_what_differs(tmp_path: Path) -> None:
    changes = write(tmp_path / "changes.yaml", "draws: 50\nsignal: []\n")
    found = read_plan([write(tmp_path / "plan.yaml", WHOLE), changes])
    assert found.draws == 50 and found.signal == () and found.codes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("signals: [si_sdr]", "says 'signals', which no plan has: give some of signal, codes"),
        ("[si_sdr]", "says 'list', which no plan has"),
        ("signal: [", "is not YAML"),
        ("signal: [sdr]", "sdr"),
        ("embedders: [{kind: clap}]", "a model of kind clap needs a name"),
        ("embedders: [{kind: recogniser, name: a/b}]", "embedders has a model of kind recogniser: give one of codec"),
        ("recalls: [0]", "recalls is"),
    ],
)
def test_what_no_plan_has_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Exception, match=said):  # jsonargparse's own, which the command line makes one line of
        read_plan([write(tmp_path / "plan.yaml", text)])


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no plan .*none.yaml"):
        read_plan([tmp_path / "none.yaml"])


def test_what_is_suggested_needs_nothing_but_what_is_there() -> None:
    assert suggested(False, False, False).is_empty
    assert not suggested(False, True, False).wants_pairs and suggested(True, True, False).wants_pairs
    assert suggested(False, True, True).embedders == (Model("codec"),)
    assert suggested(False, False, True).codes and not suggested(False, False, True).embedders
