"""Reports: written and read back, columns by judge, a page that holds what it should and nothing else."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from audiolm_kit.evaluation import figures, page
from audiolm_kit.evaluation.catalogue import METRICS, SUBJECTS, about, number
from audiolm_kit.evaluation.measures import Measure
from audiolm_kit.evaluation.report import Heard, Report, Result, read, rows, table, write

CLAP, CODEC = Heard("clap", "laion/clap", "00aa11bb22cc33dd"), Heard("codec", "codec", "ffee11bb22cc33dd")
VALUES = {f"sound-{place}": float(place % 7) for place in range(20)}


def results(judge: Heard = CLAP) -> list[Result]:
    return [
        Result("si_sdr", Measure(12.5, 11.9, 13.2, 20), values=VALUES, notes=("2 of 22 without a reference",)),
        Result("frechet_distance", Measure(3.25, 3.0, 3.5, 20), judge, references=30),
        Result("word_errors", Measure(0.081, 0.06, 0.11, 20), judge, ceiling=Measure(0.02, 0.01, 0.03, 30)),
        Result("text_recall_at_5", Measure(0.4, math.nan, math.nan, 1), judge, floor=Measure(0.1, 0.0, 0.2, 1)),
        Result("codebook_use", Measure(0.5, 0.4, 0.6, 20), CODEC, parts={"codebook 1": 0.5}),
    ]


def report(judge: Heard = CLAP, name: str = "made <b>loud</b>") -> Report:
    told = {"name": name, "sounds": 20, "references": 30, "pairs": 20, "commit": "abc", "date": "2026-01-01"}
    return Report(told, {"signal": ["si_sdr"], "voices": []}, results(judge), {"sound-0": 'a "bell" & <rain>'})


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    write(report(), tmp_path / "metrics.json")
    found = read(tmp_path / "metrics.json")
    assert found.about == report().about and found.texts == report().texts
    for ours, theirs in zip(results(), found.results, strict=True):
        assert (ours.key, ours.judge, ours.notes, dict(ours.values)) == (
            theirs.key,
            theirs.judge,
            theirs.notes,
            dict(theirs.values),
        )
        assert str(ours.measure) == str(theirs.measure) and str(ours.ceiling) == str(theirs.ceiling)


def test_the_file_is_plain_json_of_a_schema_with_rows_that_tables_are_made_of(tmp_path: Path) -> None:
    write(report(), tmp_path / "metrics.json")
    content = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert content["schema"] == 1
    row = content["table"][1]
    assert row["key"] == "frechet_distance@00aa11bb22cc33dd" and row["judge"]["fingerprint"] == CLAP.fingerprint
    assert row["what"] == "Fréchet distance (clap laion/clap)" and row["interval"] == [3.0, 3.5] and row["count"] == 20
    assert content["table"][2]["percent"] is True and content["table"][3]["interval"] is None


def test_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"schema": 99}')
    with pytest.raises(ValueError, match="schema 99, this version reads 1"):
        read(tmp_path / "metrics.json")


def test_figures_of_two_judges_never_share_a_column() -> None:
    lines = rows({"one": report(), "other": report(Heard("clap", "laion/clap", "9" * 16))}).splitlines()
    head, _, one, other = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert len(head) == len(one) == len(other) == 2 + 5 + 3
    columns = [place for place, title in enumerate(head) if title.startswith("Fréchet")]
    assert [(one[place], other[place]) for place in columns] == [("3.250 ± 0.250", ""), ("", "3.250 ± 0.250")]
    [shared] = [place for place, title in enumerate(head) if title.startswith("SI-SDR")]
    assert one[shared] == other[shared] == "12.50 ± 0.650 dB"


def test_one_key_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="si_sdr was measured twice: name each model once"):
        Report({}, {}, [results()[0], results()[0]])


def test_the_table_tells_value_interval_number_and_judge() -> None:
    lines = table(report()).splitlines()
    assert len(lines) == 2 + 5
    assert "| Fréchet distance ↓ | 3.250 | 3.000 to 3.500 | 20 | 30 |" in lines[3] and CLAP.fingerprint in lines[3]
    assert "| Word error rate ↓ | 8.1 % | 6.0 to 11.0 | 20 |  | 2.0 % |" in lines[4]
    assert len({line.count("|") for line in lines}) == 1


def test_every_metric_has_a_title_a_subject_and_a_sentence() -> None:
    for name, told in METRICS.items():
        assert told.subject in SUBJECTS and told.title and told.sentence.endswith("."), name
    assert about("sound_recall_at_10").title == "Sounds found @10"
    assert [number(value, "si_sdr") for value in (0.12345, 12.345, 123.45, 12345.0, math.nan)] == [
        "0.123",
        "12.35",
        "123.5",
        "12345",
        "–",
    ]


# --- the page ---------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Tags that are opened and closed as they should be, their identities and addresses."""

    VOID = ("meta", "br", "line", "rect", "circle")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.identities: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.identities += [str(known["id"])] if "id" in known else []
        self.addresses += [str(known[name]) for name in ("src", "href") if name in known]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_by_itself_and_needs_nothing_else() -> None:
    text = page.render(report())
    tags = Tags(text)
    assert tags.addresses == [] and "<script" not in text and "url(" not in text and "@import" not in text
    assert len(tags.identities) == len(set(tags.identities))
    assert '<html lang="en">' in text and "width=device-width" in text and "prefers-color-scheme: dark" in text
    assert "<b>loud</b>" not in text and "&lt;b&gt;loud" in text and "a &quot;bell&quot; &amp; &lt;rain&gt;" in text


def test_the_page_shows_every_result_with_its_interval_number_and_judge() -> None:
    text = page.render(report())
    for result in results():
        assert f'id="{result.key}"' in text and about(result.metric).title in text
    assert "95 %: 3.000 to 3.500" in text and "20 sounds and 30 references" in text
    assert CLAP.fingerprint in text and "2 of 22 without a reference" in text and "too few for an interval" in text


def test_the_page_leads_to_where_sounds_can_be_heard() -> None:
    found = Tags(page.render(report(), "listen.html")).addresses
    assert "listen.html" in found and "listen.html#sound-sound-3" in found


def test_sounds_are_listed_worst_first() -> None:
    text = page.render(report())
    places = [text.index(f'id="sound-{name}"') for name in ("sound-0", "sound-3", "sound-6")]
    assert places == sorted(places)


def test_pictures_are_xml_with_a_name_and_stay_within_their_frame() -> None:
    for result in results():
        for picture in (figures.interval_picture(result), figures.spread_picture(result)):
            if not picture:
                continue
            root = ElementTree.fromstring(picture)
            assert root.attrib["role"] == "img" and root.attrib["aria-label"] == root[0].text
            width, height = map(float, root.attrib["viewBox"].split()[2:])
            for each in root[1:]:
                for name in ("x", "x1", "x2", "cx"):
                    assert 0 <= float(each.attrib.get(name, 0)) <= width
                for name in ("y", "y1", "y2", "cy"):
                    assert 0 <= float(each.attrib.get(name, 0)) <= height


def test_a_picture_of_an_interval_tells_all_that_stands_in_it() -> None:
    picture = figures.interval_picture(results()[2])
    assert "8.1 %, 95 % 6.0 to 11.0, ceiling 2.0 %" in picture and re.search(r">ceiling 2.0</text>", picture)


def test_few_values_and_unknown_ones_have_no_picture() -> None:
    unknown = Result("si_sdr", Measure(math.nan, math.nan, math.nan, 0), values={"a": 1.0})
    assert figures.interval_picture(unknown) == figures.spread_picture(unknown) == ""
