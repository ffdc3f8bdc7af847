"""Stores own the state of a home: files, keys, seals. They know no rule and no terminal."""
