"""Menus: programs that many examples share, the races that find them, and their outcomes on every example."""
