"""Tests of `aggregator.cli`."""
