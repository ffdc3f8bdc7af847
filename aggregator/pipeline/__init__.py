"""Gather, decide, act: one stage, one file, one verb. Time is an argument."""
