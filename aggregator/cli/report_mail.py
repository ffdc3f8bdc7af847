"""A report as a mail: its table to read, its chart, and its rows as CSV."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from aggregator.cli import grid, report_table
from aggregator.cli.formats import as_csv

if TYPE_CHECKING:
    from aggregator.cli.grid import Column
    from aggregator.mail.plain import Post
    from aggregator.pipeline.deployment import Deployment
    from aggregator.pipeline.report import Report

_WIDTH: Final = 78
_MOST_ROWS: Final = 50
_STYLE: Final = "border-collapse:collapse;font:13px/1.5 sans-serif"
_CELL: Final = "padding:2px 8px;border-bottom:1px solid #ddd;text-align:"


@dataclasses.dataclass(frozen=True, slots=True)
class Letter:
    """A report and what is said of it: its name, a title, words beneath, and its chart as PNG."""

    kind: str
    title: str
    answer: Report
    notes: Sequence[str]
    picture: bytes | None = None


def send(house: Deployment, letter: Letter, to: Sequence[str]) -> None:
    """Send a report to the addresses `to`."""
    from aggregator.pipeline import post

    post.send_report(house, to, compose(house, letter))


def compose(house: Deployment, letter: Letter) -> Post:
    """Return the mail of a report; its table has the first fifty rows, the CSV all."""
    from aggregator.mail.plain import PICTURE, Attachment, Post

    answer, title = letter.answer, letter.title
    notes = [*letter.notes, *_left_out(answer), _why(house)]
    columns = report_table.columns_of(report_table.sliced(answer, _MOST_ROWS))
    shown, _ = grid.fit(columns, _WIDTH)
    lines = grid.lines(shown, _WIDTH) if answer.data.num_rows else []
    text = "\n".join([title, "", *lines, "", *notes, ""])
    chart = (
        f'<p><img src="cid:{PICTURE}" alt="{escape(title)}" width="720"></p>'
        if letter.picture
        else ""
    )
    words = "".join(f"<p>{escape(note)}</p>" for note in notes)
    html = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f'<body style="font:14px/1.5 sans-serif"><h1 style="font-size:18px">{escape(title)}</h1>'
        f"{chart}{_table(columns)}{words}</body></html>"
    )
    csv = Attachment(f"{letter.kind}.csv", "text/csv", as_csv(answer))
    return Post(f"[usage-aggregator] {title}", text, html, (csv,), letter.picture)


def title(kind: str, answer: Report) -> str:
    """Return what a report is called: its kind, its dimensions, and its time."""
    by = " and ".join(answer.plan.by)
    if not answer.periods:
        return f"{kind} by {by}: nothing"
    first, last = answer.periods[0], answer.periods[-1]
    return f"{kind} by {by}, {first if first == last else f'{first} to {last}'}"


def _left_out(answer: Report) -> list[str]:
    rows = answer.data.num_rows
    return (
        [f"the first {_MOST_ROWS} of {rows:,} rows; the CSV has all"] if rows > _MOST_ROWS else []
    )


def _why(house: Deployment) -> str:
    """Return why it was sent, and how to get it no more (CO-2)."""
    mail = house.config.mail
    whom = (mail.reply_to or mail.sender) if mail else ""
    return (
        "Sent because `aggregator report --mail` names this address. It holds published aggregates,"
        f" no person. To get it no more, answer to {whom}."
    )


def _table(columns: Sequence[Column]) -> str:
    kept = [column for column in columns if column.bar_of is None]
    sides = ["right" if column.right else "left" for column in kept]
    head = "".join(
        f'<th scope=col style="{_CELL}{side}">{escape(column.name)}</th>'
        for column, side in zip(kept, sides, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f'<td style="{_CELL}{side}">{escape(cell)}</td>'
            for cell, side in zip(row, sides, strict=True)
        )
        + "</tr>"
        for row in zip(*(column.cells for column in kept), strict=True)
    )
    return f'<table style="{_STYLE}"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
