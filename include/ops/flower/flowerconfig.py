"""Flower's own options: who may sign in."""

from pathlib import Path

basic_auth = [f"admin:{Path('/run/secrets/airflow_password').read_text().strip()}"]
