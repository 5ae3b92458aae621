"""Where the library meets Airflow: assets, pools, defaults, triggers and the runtime of a task.

Nothing else in the library imports Airflow, and nothing here decides anything: a DAG file says when, a job says what.
DAG files are parsed every minute, so what they import at the top imports `airflow.sdk` alone; `runtime`, jobs and
adapters are imported inside tasks.
"""
