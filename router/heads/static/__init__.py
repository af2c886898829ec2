"""Routers that run one program for all prompts."""
