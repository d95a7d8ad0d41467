-- Who may do what in ClickHouse. Run once by an administrator, with two passwords in place of the CHANGE_ME words:
--   clickhouse-client --user admin --ask-password --queries-file clickhouse.sql
-- docs/permissions.md explains every line. The one-machine stack and docker-compose.yaml read this same file.

-- 1. `offload` reads. Its limits hold whatever a table spec asks for.
CREATE SETTINGS PROFILE IF NOT EXISTS offload SETTINGS
    readonly = 2,
    max_threads = 2 MIN 1 MAX 16,
    max_memory_usage = 4294967296 MIN 1 MAX 17179869184,
    max_execution_time = 1800 MIN 1 MAX 21600;
CREATE USER IF NOT EXISTS offload IDENTIFIED WITH sha256_password BY 'CHANGE_ME_OFFLOAD' SETTINGS PROFILE offload;

-- one line for each table that may be exported
GRANT SELECT ON k2.bronze_trades_binance TO offload;
GRANT SELECT ON k2.bronze_trades_coinbase TO offload;
GRANT SELECT ON k2.bronze_trades_kraken TO offload;
GRANT SELECT ON k2.ohlcv_15m TO offload;
GRANT SELECT ON k2.ohlcv_1d TO offload;
GRANT SELECT ON k2.ohlcv_1h TO offload;
GRANT SELECT ON k2.ohlcv_1m TO offload;
GRANT SELECT ON k2.ohlcv_30m TO offload;
GRANT SELECT ON k2.ohlcv_5m TO offload;
GRANT SELECT ON k2.silver_trades TO offload;

-- what it asks of the server itself
GRANT SELECT ON system.columns TO offload;
GRANT SELECT ON system.databases TO offload;
GRANT SELECT ON system.mutations TO offload;
GRANT SELECT ON system.parts TO offload;
GRANT SELECT ON system.replicas TO offload;
GRANT SELECT ON system.settings TO offload;
GRANT SELECT ON system.tables TO offload;

-- `bin/offload verify` and `ledger rebuild` let ClickHouse read the lake with icebergS3(...)
GRANT S3 ON *.* TO offload;
GRANT CREATE TEMPORARY TABLE ON *.* TO offload;

-- 2. `offload_guard` stops and starts TTL merges, and reads nothing. Needed for `ttl_guard: stop` only.
CREATE SETTINGS PROFILE IF NOT EXISTS offload_guard SETTINGS
    max_threads = 1 MIN 1 MAX 1,
    max_memory_usage = 67108864 MIN 1 MAX 67108864,
    max_execution_time = 60 MIN 1 MAX 60;
CREATE USER IF NOT EXISTS offload_guard IDENTIFIED WITH sha256_password BY 'CHANGE_ME_GUARD' SETTINGS PROFILE offload_guard;
GRANT SYSTEM TTL MERGES ON k2.* TO offload_guard;
