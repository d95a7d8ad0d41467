"""A bit of everything in every table of the ledger, as SQL: what a backup and a migration must keep."""

FILL = """
INSERT INTO offload.tables (identity, cursor_column, width_us, source_identity, target)
    VALUES ('a.b', 'ts', 300000000, 'uuid:1', 'lake.b'), ('gone', 'ts', 1, '', 'gone');
DELETE FROM offload.tables WHERE identity = 'gone';
INSERT INTO offload.plans (plan_id, table_id, run_id, generation, predecessor, status, scan, windows, rows, document,
    snapshot_id, created_at, closed_at)
    VALUES ('00000000-0000-0000-0000-000000000001', 1, E'a\\tb\\nc\\\\d', 7, NULL, 'committed',
    '[0,600000000)', 2, 30, '{"watermark_after": 1795341600000000, "text": "ü \\"quoted\\""}', 42, now(), NULL);
INSERT INTO offload.attempts (attempt_id, plan_id, outcome)
    VALUES (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', '{}');
INSERT INTO offload.windows (table_id, span, rows, hash, fingerprint)
    SELECT 1, int8range(n * 300000000::bigint, (n + 1) * 300000000::bigint), n, 18446744073709551615, 'f'
    FROM generate_series(0, 4999) n;
INSERT INTO offload.watermarks (table_id, table_name, watermark, generation, max_sequence)
    VALUES (1, 'a.b', '2026-11-22T10:00:00.123456Z', 7, 340282366920938463463374607431768211455);
INSERT INTO offload.looks (table_id, document) VALUES (1, '{"seen_us": 1}');
INSERT INTO offload.ttl_guard (table_id, reason) VALUES (1, 'near');
INSERT INTO offload.findings (table_id, kind, span, windows, rows, accepted_at)
    VALUES (1, 'lost', '[0,300000000)', 1, 7, now()), (1, 'verify', '[300000000,600000000)', 1, 0, NULL);
INSERT INTO offload.unmet (identity, failure_count, last_error) VALUES ('a.new', 2, E'OFL-203\tgone');
"""
