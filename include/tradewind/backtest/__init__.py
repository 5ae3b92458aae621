"""Replay and report: the decision chain over stored bars, with another clock."""
