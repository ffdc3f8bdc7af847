"""The door: the HTTPS way in for agents; it takes sealed bytes and hands them to the inbox.

It holds no month key, keeps no address, and writes no access log.
"""
