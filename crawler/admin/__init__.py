"""How the running daemon is reached: the control socket, the metrics, the status page."""
