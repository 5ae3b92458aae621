"""The paper exchange: an HTTP server with Binance's spot REST dialect over the matching engine of `core`."""
