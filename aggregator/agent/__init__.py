"""The agent: runs on VPN servers, so it needs nothing beyond the standard library."""
