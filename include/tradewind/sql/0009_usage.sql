-- What a paid scorer used of each UTC day, so that a budget holds across processes and restarts.

CREATE TABLE scorer_usage (
    scorer        text    NOT NULL,
    day           date    NOT NULL,
    requests      integer NOT NULL,
    prompt_tokens bigint  NOT NULL,
    answer_tokens bigint  NOT NULL,
    cost_usd      numeric NOT NULL,
    PRIMARY KEY (scorer, day)
);
