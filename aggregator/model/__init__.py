"""Frozen records and closed lists: what every other part of the house speaks about."""
