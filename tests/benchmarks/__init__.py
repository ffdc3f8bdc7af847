"""Benchmarks against peers in the same run; no test asserts a speed."""
