"""The embedded stack: PostgreSQL, Valkey, the paper exchange, Airflow and the status app, all on 127.0.0.1."""
