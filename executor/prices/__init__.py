"""Prices: quotes and where they come from."""
