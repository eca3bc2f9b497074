"""Faults at any moment, against real servers."""
