"""Fixtures of this cloud's servers and stores."""
