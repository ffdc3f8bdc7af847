"""The rules, each against its own definition."""
