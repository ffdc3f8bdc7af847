"""Lets the agent's tests import `captures`, whichever way the tests are collected."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
