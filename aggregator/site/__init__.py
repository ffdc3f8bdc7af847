"""The site: pages for people, made of the published tables, that work from disk and offline."""
