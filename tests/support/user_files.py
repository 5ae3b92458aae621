"""The files that a deployment's owner edits: what stops trading must work beside a mistake in any of them.

Paths under the project, the last part a pattern.
"""

USER_FILES = (
    ".env",
    "docker-compose.yaml",
    "include/strategy.toml",
    "include/tradewind/core/filters.py",
    "include/tradewind/core/gates.py",
    "include/tradewind/core/feature_table.py",
    "include/tradewind/core/formulas.py",
    "dags/*.py",
    "plugins/*.py",
)
