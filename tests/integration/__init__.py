"""Tests with real daemons in network namespaces: `make integration` runs them, as root."""
