"""Tests of `aggregator.pipeline`."""
