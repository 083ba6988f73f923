"""Trackers, each read back with its own package: TensorBoard, Weights & Biases, MLflow."""

import json
import os
import shutil
import struct
import warnings

import numpy as np
import pytest

import jtrust
from jtrust.runs.metrics import Services
from jtrust.runs.mlflow_sink import MLflow, tracking_uri
from jtrust.runs.sinks import IterationInfo

pytestmark = pytest.mark.slow

SMALL = dict(num_envs=8, unroll_length=8, devices=1)


@pytest.fixture(scope="module", autouse=True)
def nothing_leaves_this_machine():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(name, raising=False)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("WANDB_SILENT", "true")
        yield


@pytest.fixture(scope="module")
def tracked(tmp_path_factory, point):
    """A run of three iterations that was resumed for two more, told to all trackers."""
    place = tmp_path_factory.mktemp("tracked")
    run = place / "a run #1"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        jtrust.train(point, total_steps=64 * 3, run_dir=run, tensorboard=True, wandb=True,
                     mlflow=True, checkpoint_every=1, **SMALL)
        # The name of an event file has the second in it.
        patch.setattr("tensorboardX.event_file_writer.time.time", lambda: 4e9)
        jtrust.resume(run, 64 * 5, env=point, devices=1)
    return run


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# TensorBoard.


def scalars(path):
    """(tag, step, value) of an event file, by TensorFlow's record format."""
    from tensorboardX.proto.event_pb2 import Event

    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        (length,) = struct.unpack("<Q", data[at:at + 8])
        event = Event.FromString(data[at + 12:at + 12 + length])
        found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
        at += 12 + length + 4
    return found


def test_event_files_of_tensorboard_hold_every_number(tracked):
    told = [x for events in sorted(tracked.glob("events.out.tfevents*")) for x in scalars(events)]
    wanted = [(k, row["step"], np.float32(v)) for row in rows_of(tracked)
              for k, v in row.items() if v is not None]
    assert [(tag, step, np.float32(v)) for tag, step, v in told] == wanted
    assert len(wanted) > 100


# Weights & Biases.


def records(path):
    """Records of an offline run's file: LevelDB's log format behind seven bytes of their own."""
    data, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:  # no header begins in the last bytes of a block
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7:at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def history(path):
    """(rows, names of runs) that an offline run of Weights & Biases keeps."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows, ids = [], []
    for data in records(path):
        record = Record.FromString(data)
        if record.HasField("history"):
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json)
                         for item in record.history.item})
        if record.HasField("run"):
            ids.append(record.run.run_id)
    return rows, ids


def test_weights_and_biases_keeps_a_run_offline_and_goes_on_in_it(tracked):
    kept = [history(path) for path in sorted(tracked.glob("wandb/offline-run-*/run-*.wandb"))]
    assert len(kept) == 2 and len({i for _, ids in kept for i in ids}) == 1
    logged = [row for rows, _ in kept for row in rows]
    for row, wanted in zip(logged, rows_of(tracked), strict=True):
        assert row["_step"] == wanted["step"]
        assert {k: row[k] for k, v in wanted.items() if v is not None} == {
            k: v for k, v in wanted.items() if v is not None
        }


# MLflow.


def client_of(run):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri(run))


def only_run(client):
    experiment = client.get_experiment_by_name("jtrust")
    (found,) = client.search_runs([experiment.experiment_id])
    return found


def test_mlflow_has_every_number_and_goes_on_in_the_same_run(tracked):
    client = client_of(tracked)
    found = only_run(client)
    assert found.info.status == "FINISHED" and found.info.run_name == "a run #1"
    rows = rows_of(tracked)
    for key in ("policy/kl", "episode/return", "step", "time/seconds"):
        told = [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, key)]
        assert sorted(told) == [(r["step"], r[key]) for r in rows if r[key] is not None], key
    config = json.loads((tracked / "config.json").read_text())
    assert found.data.params["hyperparameters.max_kl"] == str(config["hyperparameters"]["max_kl"])
    assert found.data.params["seed"] == "0" and "signature" not in found.data.params
    assert os.listdir(tracked.parent) == [tracked.name]  # nothing where it was called


def test_iterations_that_mlflow_has_are_not_told_again(tracked, tmp_path, point):
    run = tmp_path / "r"
    shutil.copytree(tracked, run)
    (run / "320").rename(tmp_path / "gone")  # as if it had been killed before its last checkpoint
    jtrust.resume(run, 64 * 6, env=point, devices=1, tensorboard=False, wandb=False)
    client = client_of(run)
    told = client.get_metric_history(only_run(client).info.run_id, "step")
    assert sorted(m.value for m in told) == [64, 128, 192, 256, 320, 384]


def test_mlflow_goes_where_the_variable_says_and_stays_off_when_told(tmp_path, point, monkeypatch):
    run = tmp_path / "r"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "jtrust")
    jtrust.train(point, total_steps=64, run_dir=run, mlflow=True, **SMALL)
    jtrust.resume(run, 128, env=point, devices=1, mlflow=False)
    client = client_of(run)
    assert only_run(client).data.metrics["step"] == 64
    assert (tmp_path / "shared.db").exists() and not (run / "mlflow.db").exists()
    jtrust.resume(run, 192, env=point, devices=1)
    assert only_run(client).data.metrics["step"] == 64


@pytest.mark.parametrize("uri", ["sqlite:////proc/none/x.db", "file:///tmp/none", "x://a:secret@b"])
def test_a_store_that_cannot_be_had_is_one_line_without_the_password(tmp_path, uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(jtrust.BadArgument, match="MLFLOW_TRACKING_URI") as error:
        MLflow(tmp_path, {}, "a")
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


def test_a_path_that_no_database_address_can_have_is_refused(tmp_path):
    for name in ("a?b", "100%"):
        with pytest.raises(jtrust.BadArgument, match=r"\? or %"):
            tracking_uri(tmp_path / name)


def test_a_store_that_fails_later_is_told_of_and_the_run_goes_on(tmp_path, monkeypatch):
    sink = MLflow(tmp_path, {"seed": 1}, "a")
    real = sink._client.log_batch
    failing = True

    def log_batch(*args, **named):
        if failing:
            raise ConnectionError("gone away")
        real(*args, **named)

    monkeypatch.setattr(sink._client, "log_batch", log_batch)
    with pytest.warns(UserWarning, match="gone away"):
        for i in range(1, 4):
            sink.on_iteration(IterationInfo(i, i, {"step": i}, None, None))
            sink._sending.exception()
    failing = False
    sink.on_iteration(IterationInfo(4, 4, {"step": 4}, None, None))
    sink.on_end(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sink.close()
    told = sink._client.get_metric_history(sink._id, "step")
    assert sorted(m.value for m in told) == [1, 2, 3, 4]


def test_what_mlflow_was_never_told_is_said_in_the_end(tmp_path, monkeypatch):
    sink = MLflow(tmp_path, {}, "a")
    monkeypatch.setattr(sink._client, "log_batch", lambda *_, **__: 1 / 0)
    sink.on_iteration(IterationInfo(1, 64, {"step": 64, "x": 1}, None, None))
    with pytest.warns(UserWarning, match="last 1 iterations"):
        sink.close()
    assert sink._client.get_metric_history(sink._id, "step") == []


def test_mlflow_needs_a_run_directory(point):
    with pytest.raises(jtrust.BadArgument, match="run_dir"):
        jtrust.train(point, total_steps=64, mlflow=True, **SMALL)
    with pytest.raises(jtrust.BadArgument, match="mlflow"):
        Services(0, False, False, "yes").checked(True)
