"""The pure heart: no I/O, no clock, no environment. Everything here can be replayed."""
