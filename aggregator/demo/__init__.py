"""The demonstration: real captures and a made-up fleet, all the way through a purge."""
