"""A minimal-telemetry usage aggregator for VPN providers."""

__version__ = "0.2.0"
