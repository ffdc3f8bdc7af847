"""What goes between agents and the aggregator: sealed batches and announced keys.

Both ends share these formats and nothing else. They are pure: bytes in, bytes out.
"""
