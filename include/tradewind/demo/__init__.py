"""`./tradewind demo`: the whole job once, with real parts, on an empty machine."""
