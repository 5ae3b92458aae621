"""These tests import Airflow, and open none of its servers."""

from tests.support.airflow_home import prepare_airflow

prepare_airflow()
