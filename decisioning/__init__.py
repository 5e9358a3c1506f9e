"""The domain: from events to decisions. Pure: no I/O, no clock, no chance."""
