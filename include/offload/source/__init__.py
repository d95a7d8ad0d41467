"""The source: ClickHouse. What it holds, what it can give without loss, and when it will delete it."""
