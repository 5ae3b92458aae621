"""The edge: everything that talks to an exchange, a database, a cache or a feed."""
