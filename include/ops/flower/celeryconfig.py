"""Where flower finds Celery's broker: a secret file, so that no environment or command line holds the password."""

from pathlib import Path

broker_url = Path("/run/secrets/airflow_broker_url").read_text().strip()
