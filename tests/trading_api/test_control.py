"""The controls: the latch first and always, runs once, everything audited."""

from __future__ import annotations

import json

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from tests.support.outside import Outside
from tests.trading_api.conftest import CONTROLLER, READER
from tradewind.adapters.database import Database
from tradewind.settings import Settings
from tradewind.stack.job_following import NEVER_STARTED

STARTS = {
    "/api/collect-historical-data": ("backfill_history", {"symbols": ["BTC/USDT"], "timeframes": ["15m"]}),
    "/api/train": ("retrain_models", {"reason": "drift"}),
    "/api/trigger-trade-cycle": ("run_trade_cycle", {}),
}


@pytest.mark.parametrize("path", STARTS)
def test_a_start_answers_with_a_job_to_follow(
    client: FlaskClient, around: Outside, database: Database, path: str
) -> None:
    dag_id, body = STARTS[path]
    answer = client.post(path, json=body, headers=CONTROLLER)
    assert answer.status_code == 202, answer.text
    started = answer.get_json()
    run = around.runs[dag_id, started["dag_run_id"]]
    if dag_id == "backfill_history":
        assert run["conf"]["job_id"] == started["job_id"]
        assert run["conf"]["symbols"] == ["BTC/USDT"]
    job = client.get(started["href"], headers=READER).get_json()
    assert (job["kind"], job["state"], job["progress_frac"]) == (dag_id, "queued", 0.0)
    run |= {"state": "success", "start_date": "2026-03-01T12:00:00Z", "end_date": "2026-03-01T12:01:00Z"}
    job = client.get(started["href"], headers=READER).get_json()
    assert (job["state"], job["progress_frac"]) == ("done", 1.0)
    audit = database.rows("SELECT action, outcome FROM audit")
    assert audit == [{"action": dag_id, "outcome": "started"}]


@pytest.mark.parametrize("path", STARTS)
def test_the_same_key_starts_one_run(client: FlaskClient, around: Outside, path: str) -> None:
    _, body = STARTS[path]
    headers = CONTROLLER | {"Idempotency-Key": "once"}
    answers = [client.post(path, json=body, headers=headers) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.get_json()["job_id"] for answer in answers}) == 1
    assert len(around.runs) == 1
    client.post(path, json=body, headers=CONTROLLER)
    client.post(path, json=body, headers=CONTROLLER)
    assert len(around.runs) == 3, "without a key each call is its own"


def test_a_key_for_other_parameters_is_refused(client: FlaskClient, around: Outside) -> None:
    headers = CONTROLLER | {"Idempotency-Key": "once"}
    assert client.post("/api/train", json={"reason": "a"}, headers=headers).status_code == 202
    answer = client.post("/api/train", json={"reason": "b"}, headers=headers)
    assert answer.status_code == 422
    assert "Idempotency-Key" in answer.get_json()["detail"]
    assert len(around.runs) == 1


def test_airflow_down_is_said_and_the_same_key_may_try_again(
    client: FlaskClient, around: Outside, database: Database
) -> None:
    headers = CONTROLLER | {"Idempotency-Key": "later"}
    around.airflow_down = True
    answer = client.post("/api/train", json={"reason": "x"}, headers=headers)
    assert answer.status_code == 503
    assert "Airflow" in answer.get_json()["detail"]
    job = database.row("SELECT job_id, state FROM jobs")
    assert job is not None
    assert job["state"] == "queued"
    around.airflow_down = False
    database.execute("UPDATE jobs SET created_at = created_at - interval '2 minutes'")
    told = client.get(f"/api/jobs/{job['job_id']}", headers=READER).get_json()
    assert (told["state"], told["error"]) == ("failed", NEVER_STARTED)
    assert client.post("/api/train", json={"reason": "x"}, headers=headers).status_code == 202
    assert client.get(f"/api/jobs/{job['job_id']}", headers=READER).get_json()["state"] == "queued"


def test_progress_counts_chunks(client: FlaskClient, database: Database) -> None:
    started = client.post("/api/collect-historical-data", json={}, headers=CONTROLLER).get_json()
    database.execute("UPDATE jobs SET state = 'running'")
    database.execute(
        "INSERT INTO history_chunks SELECT %s, 'BTC/USDT', '15m', timestamptz '2026-01-01' + n * interval '1 d', "
        "now(), CASE WHEN n < 3 THEN now() END, 96, 96 FROM generate_series(1, 4) n",
        (started["job_id"],),
    )
    job = client.get(started["href"], headers=READER).get_json()
    assert (job["state"], job["progress_frac"], job["rows_new"]) == ("running", 0.5, 384)
    database.execute("UPDATE jobs SET started_at = now() - interval '1 minute'")
    progress = client.get(started["href"], headers=READER).get_json()["progress"]
    assert progress["series"]["BTC/USDT 15m"]["percent"] == pytest.approx(50, abs=1)
    assert progress["eta_s"] == pytest.approx(60, abs=10)


# -------------------------------------------------------------------------------------------------------------- latch
def test_halt_latches_with_airflow_exchange_and_redis_down(
    client: FlaskClient, around: Outside, settings: Settings, database: Database
) -> None:
    around.airflow_down = True
    object.__setattr__(settings, "exchange_url", "http://127.0.0.1:9")
    object.__setattr__(settings, "cache_url", SecretStr("redis://127.0.0.1:1/0"))
    answer = client.post("/api/halt", json={"reason": "looking into fills"}, headers=CONTROLLER)
    assert answer.status_code == 200, answer.text
    assert answer.get_json()["mode"] == "reduce_only"
    assert database.row("SELECT mode, reason FROM latches") == {"mode": "reduce_only", "reason": "looking into fills"}
    row = database.row("SELECT action, source FROM audit")
    assert row is not None
    assert row["action"] == "halt"
    assert "127.0.0.1" in row["source"]


def test_halting_twice_keeps_the_first_reason(client: FlaskClient) -> None:
    client.post("/api/halt", json={"reason": "first"}, headers=CONTROLLER)
    second = client.post("/api/halt", json={"reason": "second"}, headers=CONTROLLER).get_json()
    assert (second["reason"], second["sequence"]) == ("first", 1)


def test_flatten_latches_before_it_asks_airflow(client: FlaskClient, around: Outside, database: Database) -> None:
    answer = client.post("/api/flatten", json={}, headers=CONTROLLER)
    assert answer.status_code == 202, answer.text
    body = answer.get_json()
    assert (body["mode"], body["sequence"]) == ("halted", 1)
    ((dag_id, _), run) = next(iter(around.runs.items()))
    assert (dag_id, run["conf"]["latch_sequence"]) == ("trip_circuit_breaker", 1)
    assert client.get(body["href"], headers=READER).get_json()["kind"] == "trip_circuit_breaker"
    assert database.row("SELECT outcome FROM audit WHERE action = 'flatten'") == {"outcome": "latched"}


def test_flatten_latches_with_airflow_down_and_says_who_carries_it_on(
    client: FlaskClient, around: Outside, database: Database
) -> None:
    around.airflow_down = True
    answer = client.post("/api/flatten", json={}, headers=CONTROLLER)
    assert answer.status_code == 202, answer.text
    assert answer.get_json()["job_id"] is None
    assert "./tradewind flatten does it now" in answer.get_json()["detail"]
    assert database.row("SELECT mode FROM latches") == {"mode": "halted"}


def test_resume_starts_a_run_that_acts_on_its_audit_row(
    client: FlaskClient, around: Outside, database: Database
) -> None:
    client.post("/api/halt", json={"reason": "lunch"}, headers=CONTROLLER)
    answer = client.post("/api/resume", json={}, headers=CONTROLLER)
    assert answer.status_code == 202, answer.text
    ((dag_id, _), run) = next(iter(around.runs.items()))
    assert dag_id == "resume_trading"
    asked = database.row("SELECT detail, source FROM audit WHERE outcome = 'requested'")
    assert asked is not None
    assert asked["detail"]["request"] == run["conf"]["request"]
    assert database.row("SELECT mode FROM latches") == {"mode": "reduce_only"}, "only the run opens it"
    database.execute(
        "INSERT INTO audit (actor, action, outcome, detail, source) "
        "VALUES ('control', 'resume', 'refused', '{\"refusals\": [\"BTC/USDT: 0.1 held\"]}', %s)",
        (asked["source"],),
    )
    run["state"] = "failed"
    job = client.get(answer.get_json()["href"], headers=READER).get_json()
    assert (job["state"], job["error"]) == ("failed", "Refused: BTC/USDT: 0.1 held")


@pytest.mark.parametrize("path", ["/api/resume", "/api/flatten"])
def test_the_same_press_resumes_or_flattens_once(
    client: FlaskClient, around: Outside, database: Database, path: str
) -> None:
    headers = CONTROLLER | {"Idempotency-Key": "one-press"}
    around.airflow_down = path == "/api/resume"
    first = client.post(path, json={}, headers=headers)
    around.airflow_down = False
    answers = [client.post(path, json={}, headers=headers) for _ in range(2)]
    assert first.status_code == (503 if path == "/api/resume" else 202)
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.get_json()["job_id"] for answer in answers}) == 1
    assert len(around.runs) == 1
    asked = database.rows("SELECT 1 FROM audit WHERE outcome = 'requested'")
    assert len(asked) == (1 if path == "/api/resume" else 0)
    assert client.post(path, json={}, headers=CONTROLLER).status_code == 202
    assert len(around.runs) == 2, "another press is another run"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/halt", {}),
        ("/api/halt", {"reason": ""}),
        ("/api/halt", {"reason": "a\x00b"}),
        ("/api/halt", {"reason": "a\nb"}),
        ("/api/halt", {"reason": 5}),
        ("/api/halt", {"reason": "x", "more": 1}),
        ("/api/halt", []),
        ("/api/train", {"reason": "x" * 201}),
        ("/api/trigger-trade-cycle", {"bar": "soon"}),
        ("/api/collect-historical-data", {"symbols": ["BTC/USDT; DROP"]}),
        ("/api/collect-historical-data", {"symbols": "BTC/USDT"}),
        ("/api/collect-historical-data", {"timeframes": ["1m"]}),
        ("/api/collect-historical-data", {"from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}),
    ],
)
def test_bad_bodies_get_a_problem_and_do_nothing(
    client: FlaskClient, database: Database, around: Outside, path: str, body: object
) -> None:
    answer = client.post(path, data=json.dumps(body), content_type="application/json", headers=CONTROLLER)
    assert answer.status_code == 422, answer.text
    assert answer.mimetype == "application/problem+json"
    assert database.rows("SELECT 1 FROM latches") == []
    assert around.runs == {}


@pytest.mark.parametrize("body", ["{", "", "null", "\xff"])
def test_what_is_no_json_gets_a_problem(client: FlaskClient, body: str) -> None:
    answer = client.post("/api/halt", data=body.encode("latin-1"), content_type="application/json", headers=CONTROLLER)
    assert answer.status_code in (400, 422), answer.text
    assert answer.mimetype == "application/problem+json"


@pytest.mark.parametrize("key", ["a b", "x" * 129, "a/../b"])
def test_bad_idempotency_keys_are_refused(client: FlaskClient, around: Outside, key: str) -> None:
    answer = client.post("/api/train", json={}, headers=CONTROLLER | {"Idempotency-Key": key})
    assert answer.status_code == 422
    assert around.runs == {}
