"""The door: the HTTPS way in for agents; it takes sealed bytes and hands them to the inbox."""
