"""Mail: what a notice says, as text and HTML, and how it is handed to a server."""
