#!/usr/bin/env python3
"""Writes the dashboards next to this file. `.ci/run` runs it again and compares.

Needs grafana-foundation-sdk of PyPI, with its epoch: `pip install 'grafana-foundation-sdk==1769699998!10.1.0'`. The dashboards
were never opened in a Grafana: none was at hand. Their expressions were evaluated by a Prometheus.
"""
import pathlib
import sys

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

# Placeholders: $job is a variable of each dashboard.
JOB = 'job=~"$job"'


def quantile(q, name, by="job"):
    return f"histogram_quantile({q}, sum by ({by}, le) (rate({name}_bucket{{{JOB}}}[$__rate_interval])))"


def rate(name, by="job", more=""):
    return f"sum by ({by}) (rate({name}{{{JOB}{more}}}[$__rate_interval]))"


# Title of each panel, its unit, and its queries with their legends.
DASHBOARDS = {
    "mesh": ("x0 mesh", [
        ("Members up", "short", [(f'sum by (job) (up{{{JOB}}})', "up"), (f"max by (job) (x0_consensus_voters{{{JOB}}})", "voters")]),
        ("Links up", "short", [(f"sum by (instance) (x0_mesh_peer_up{{{JOB}}})", "{{instance}}")]),
        ("Round-trip time", "s", [(f"x0_mesh_peer_rtt_seconds{{{JOB}}}", "{{instance}} to {{peer}}")]),
        ("Loss", "percentunit", [(f"x0_mesh_peer_loss_ratio{{{JOB}}}", "{{instance}} to {{peer}}")]),
        ("Age of the last message", "s", [(f"x0_mesh_peer_last_message_age_seconds{{{JOB}}}", "{{instance}} from {{peer}}")]),
        ("Link quality", "percentunit", [(f"x0_mesh_link_quality{{{JOB}}}", "{{instance}} to {{peer}} {{direction}}")]),
        ("Routes", "short", [(rate("x0_mesh_route_changes_total", "instance"), "{{instance}} changes/s"),
                             (f"count by (instance) (x0_mesh_path_metric{{{JOB}}})", "{{instance}} destinations")]),
        ("Failovers", "short", [(rate("x0_mesh_failovers_total", "instance, cause"), "{{instance}} {{cause}}")]),
        ("Adaptation", "short", [(rate("x0_mapek_events_total", "instance, event"), "{{instance}} {{event}}"),
                                 (f"x0_mapek_unhealthy{{{JOB}}}", "{{instance}} unhealthy")]),
        ("Reconnections", "short", [(rate("x0_mesh_reconnections_total", "instance"), "{{instance}}")]),
        ("Handshake failures", "short", [(rate("x0_mesh_handshake_failures_total", "instance, reason"), "{{instance}} {{reason}}")]),
        ("Bytes", "Bps", [(rate("x0_mesh_sent_bytes_total", "instance"), "{{instance}} sent"),
                          (rate("x0_mesh_received_bytes_total", "instance"), "{{instance}} received")]),
        ("Datagrams", "short", [(rate("x0_mesh_datagrams_total", "instance, direction"), "{{instance}} {{direction}}")]),
        ("SVID lifetime left", "s", [(f"x0_identity_svid_not_after_seconds{{{JOB}}} - time()", "{{instance}}")]),
    ]),
    "consensus": ("x0 consensus", [
        ("Term", "short", [(f"x0_consensus_term{{{JOB}}}", "{{instance}}")]),
        ("Leader", "short", [(f"x0_consensus_is_leader{{{JOB}}}", "{{instance}}")]),
        ("Elections", "s", [(quantile(0.99, "x0_consensus_election_seconds"), "p99"),
                            (rate("x0_consensus_leader_changes_total", "instance"), "{{instance}} changes/s")]),
        ("Commit", "s", [(quantile(q, "x0_consensus_commit_seconds"), f"p{name}") for q, name in
                         ((0.5, "50"), (0.9, "90"), (0.95, "95"), (0.99, "99"), (0.999, "99.9"))]),
        ("Follower lag", "short", [(f"max by (peer) (x0_consensus_follower_lag_entries{{{JOB}}})", "{{peer}}")]),
        ("Durable write (fsync)", "s", [(quantile(0.5, "x0_consensus_log_write_seconds", "instance"), "{{instance}} p50"),
                                        (quantile(0.99, "x0_consensus_log_write_seconds", "instance"), "{{instance}} p99")]),
        ("Apply", "s", [(quantile(0.99, "x0_consensus_apply_seconds", "instance"), "{{instance}} p99")]),
        ("Entries", "short", [(rate("x0_consensus_log_entries_total", "instance"), "{{instance}}")]),
        ("Log", "bytes", [(f"x0_consensus_log_bytes{{{JOB}}}", "{{instance}}")]),
        ("Snapshots", "Bps", [(rate("x0_consensus_snapshot_bytes_total", "instance, way"), "{{instance}} {{way}}")]),
        ("Dropped proposals", "short", [(rate("x0_consensus_dropped_total", "instance"), "{{instance}}")]),
    ]),
    "storage": ("x0 storage", [
        ("Operations", "ops", [(rate("x0_kv_operation_seconds_count", "kind, consistency"), "{{kind}} {{consistency}}")]),
        ("Latency", "s", [(quantile(q, "x0_kv_operation_seconds", "kind, consistency"), "{{kind}} {{consistency}} p" + name)
                          for q, name in ((0.5, "50"), (0.99, "99"), (0.999, "99.9"))]),
        ("Errors", "ops", [(rate("x0_kv_operation_errors_total", "kind, error"), "{{kind}} {{error}}")]),
        ("Waiting", "short", [(f"x0_kv_operations_waiting{{{JOB}}}", "{{instance}}")]),
        ("Sessions", "short", [(f"x0_kv_sessions{{{JOB}}}", "{{instance}}")]),
        ("CRDT deltas and conflicts", "short", [(rate("x0_kv_crdt_joins_total", "instance"), "{{instance}} joins"),
                                                (rate("x0_kv_crdt_conflicts_total", "instance, type"), "{{instance}} {{type}}")]),
        ("CRDT stability lag", "short", [(f"x0_kv_crdt_stability_lag_events{{{JOB}}}", "{{instance}}")]),
        ("Checkpoints", "s", [(quantile(0.99, "x0_kv_checkpoint_seconds", "instance"), "{{instance}} p99"),
                              (rate("x0_kv_checkpoints_total", "instance"), "{{instance}} per second")]),
        ("Blobs", "bytes", [(f"x0_kv_blob_stored_bytes{{{JOB}}}", "{{instance}}")]),
        ("Disk free", "bytes", [(f"x0_node_disk_free_bytes{{{JOB}}}", "{{instance}}")]),
        ("CPU", "short", [(f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])", "{{instance}}")]),
        ("Memory", "bytes", [(f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}")]),
        ("Health", "short", [(f"min by (instance, component) (x0_node_health{{{JOB}}})", "{{instance}} {{component}}")]),
    ]),
}


def build(name, title, panels):
    source = DataSourceRef(type_val="prometheus", uid="${datasource}")
    board = (
        dashboard.Dashboard(title).uid(f"x0-{name}").tags(["x0"]).refresh("10s").time("now-1h", "now").timezone("browser")
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
        .with_variable(dashboard.QueryVariable("job").query("label_values(x0_build_info, job)").datasource(source).multi(True)
                       .include_all(True).all_value("x0.*"))
    )
    for title, unit, queries in panels:
        panel = timeseries.Panel().title(title).unit(unit).datasource(source).height(8).span(12)
        for number, (expression, legend) in enumerate(queries):
            panel = panel.with_target(
                prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(65 + number)))
        board = board.with_panel(panel)
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def main():
    folder = pathlib.Path(__file__).parent
    stale = []
    for name, (title, panels) in DASHBOARDS.items():
        path, text = folder / f"{name}.json", build(name, title, panels)
        if sys.argv[1:] == ["--check"]:
            if path.read_text() != text:
                stale.append(path.name)
        else:
            path.write_text(text)
    if stale:
        print(f"{', '.join(stale)}: not what generate.py writes; run it again and commit the result", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
