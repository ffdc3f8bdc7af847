"""Charts: sound XML, every point within the frame, words for those who do not see them."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree as ET

from hypothesis import example, given
from hypothesis import strategies as st

from aggregator.pictures.chart import Chart, Series, bars, lines, spark
from aggregator.pictures.scale import sparse, spread, ticks

_VALUES = st.lists(st.none() | st.floats(0, 1e18), min_size=1, max_size=60)
_SVG = "{http://www.w3.org/2000/svg}"


def chart(*series: tuple[str, list[float | None]], **more: object) -> Chart:
    labels = [f"2026-{1 + n // 28:02d}-{1 + n % 28:02d}" for n in range(len(series[0][1]))]
    made = [Series(name, values) for name, values in series]
    return Chart("Bytes <a> & b", labels, made, lambda value: f"{value:.3g}", **more)  # type: ignore[arg-type] # passed on


@given(_VALUES, st.booleans(), st.booleans())
def test_a_line_stays_within_its_picture(
    values: list[float | None], from_zero: bool, standalone: bool
) -> None:
    drawn = chart(("one", values), ("two", values[::-1]), from_zero=from_zero)
    text = lines(drawn, width=600, height=200, standalone=standalone)
    assert "nan" not in text
    assert "inf" not in text.replace("Nothing", "")
    ET.fromstring(text.encode())
    for path in re.findall(r'class="line s\d"[^>]* d="([^"]*)"', text):
        for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path):
            assert 0 <= float(x) <= 600
            assert 0 <= float(y) <= 200


@given(_VALUES)
def test_bars_are_as_long_as_their_values(values: list[float | None]) -> None:
    root = ET.fromstring(bars(chart(("one", values)), standalone=True).encode())
    lengths = [float(rect.get("width", "")) for rect in root.iter(f"{_SVG}rect")][1:]
    known = [value or 0.0 for value in values]
    assert len(lengths) == len(known)
    most = max(known)
    for length, value in zip(lengths, known, strict=True):
        assert abs(length - (value / most * max(lengths) if most else 0)) <= 0.11
    assert max(lengths) < 720


def test_a_gap_is_no_line_and_a_lone_day_a_dot() -> None:
    text = lines(chart(("one", [1.0, 2.0, None, 3.0, None, 4.0, 5.0])))
    path = re.search(r'class="line s0" d="([^"]*)"', text)
    assert path is not None
    assert path[1].count("M") == 3
    assert text.count("<circle") == 1


def test_a_picture_says_what_it_shows() -> None:
    root = ET.fromstring(lines(chart(("one", [1.0, 9.0, None, 3.0])), standalone=True).encode())
    title, told = (root.find(f"{_SVG}{name}") for name in ("title", "desc"))
    assert title is not None
    assert told is not None
    assert title.text == "Bytes <a> & b"
    assert told.text == "one: least 1 (2026-01-01), most 9 (2026-01-02), last 3 (2026-01-04)."
    assert root.get("role") == "img"


def test_series_differ_without_colour() -> None:
    text = lines(chart(*((f"s{number}", [1.0, 2.0]) for number in range(9))))
    dashes = re.findall(r'class="line s\d"( stroke-dasharray="[^"]*")?', text)
    assert len(dashes) == len(set(dashes)) == 8
    assert all(f">s{number}</text>" in text for number in range(8))


def test_a_rate_that_hardly_moves_does_not_leap() -> None:
    text = lines(chart(("one", [96.9, 97.1]), from_zero=False))
    ys = [float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", text.split("line s0")[1])][:2]
    assert abs(ys[0] - ys[1]) < 20


def test_a_page_gives_its_own_colours_and_a_file_has_its_own() -> None:
    inline, alone = (lines(chart(("one", [1.0, 2.0])), standalone=one) for one in (False, True))
    assert "<style" not in inline
    assert "#" not in inline
    assert "var(" not in alone
    assert alone.startswith("<?xml")


def test_a_spark_is_small() -> None:
    assert len(spark([1.0, 2.0, None, 3.0])) < 300
    ET.fromstring(spark([]))


@given(st.floats(0, 1e18), st.floats(0, 1e18))
@example(0.0, 5e-324)
def test_ticks_are_round_and_hold_all(one: float, other: float) -> None:
    low, high = sorted((one, other))
    found = ticks(low, high)
    assert found[0] <= low * (1 + 1e-9)
    assert found[-1] >= high * (1 - 1e-9)
    assert 2 <= len(found) <= 8


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_labels_do_not_lie_on_each_other(wanted: list[float]) -> None:
    places = sorted(spread(wanted, 12, 0, 100))
    assert all(-0.01 <= place <= 100.01 for place in places)
    assert all(b - a >= 11.99 for a, b in itertools.pairwise(places))


@given(st.integers(1, 1000), st.integers(2, 9))
def test_a_few_of_many_with_both_ends(count: int, most: int) -> None:
    found = sparse(count, most)
    assert found == sorted(set(found))
    assert (found[0], found[-1]) == (0, count - 1)
    assert len(found) <= most
