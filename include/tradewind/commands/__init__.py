"""The groups of `./tradewind` commands, each imported only when it runs."""
