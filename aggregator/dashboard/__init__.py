"""The dashboard: the pages of the site as the home is now, behind a login, on this machine only."""
