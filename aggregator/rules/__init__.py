"""Pure rules: no disk, no network, no clock; time is an argument."""
