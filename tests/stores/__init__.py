"""Tests of `aggregator.stores`."""
