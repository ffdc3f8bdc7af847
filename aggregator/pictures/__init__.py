"""Charts as SVG text: numbers in, a picture out. Pure: no disk, no network, no clock."""
