-- What is asked for every few seconds must not take longer with each month that is stored.

-- The watch asks for the last reading and the peak.
CREATE INDEX equity_by_time ON equity (account, at DESC);
CREATE INDEX equity_by_value ON equity (account, equity_quote DESC);

-- The status page asks for the newest of all symbols.
CREATE INDEX regimes_by_bar ON regimes (bar DESC, symbol);
CREATE INDEX sentiment_by_time ON sentiment (as_of DESC, symbol);
