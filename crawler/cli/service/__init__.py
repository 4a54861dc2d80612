"""The program as a service of systemd: what is installed, and what a unit lets it do."""
