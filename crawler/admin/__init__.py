"""Access to the running daemon: control socket, metrics, status page."""
