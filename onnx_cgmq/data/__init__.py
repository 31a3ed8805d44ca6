"""Readers for the data that users have."""
