"""Numbers as people read them: the same on the terminal, in mails and on pages."""

from __future__ import annotations


def size(count: int | None) -> str:
    """Return a number of bytes for people, in decimal units; "-" for none told."""
    if count is None:
        return "-"
    number, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if abs(number) < 999.95 or unit == "PB":
            break
        number /= 1000
    return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
