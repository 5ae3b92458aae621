"""The keyless scorer, as a `ports.ArticleScorer`."""

from __future__ import annotations

from collections.abc import Sequence

from tradewind.core.lexicon import SCORER_NAME, lexicon_score
from tradewind.core.types import Article


class LexiconScorer:
    """Scores articles by a local word list; labelled "lexicon" wherever its scores show."""

    @property
    def name(self) -> str:
        return SCORER_NAME

    def score(self, articles: Sequence[Article]) -> dict[str, float]:
        """Every article gets a score; 0.0 where no known word occurs."""
        return {article.article_id: lexicon_score(article.title, article.summary) for article in articles}
