"""Tradewind: a crypto trading system that Apache Airflow orchestrates."""

__version__ = "0.1.0"
