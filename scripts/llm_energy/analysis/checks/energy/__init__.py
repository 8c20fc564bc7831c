"""Checks of the joules and of the sensors that counted them."""
