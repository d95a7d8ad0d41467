"""Health check of an Airflow component: `python healthy.py scheduler`. Exit 0 when the API server calls it healthy.

Asking the API server costs one request; `airflow jobs check` would load all of Airflow every time.
"""

import json
import sys
import urllib.request

URL = "http://airflow-api-server:8080/api/v2/monitor/health"


def main() -> int:
    with urllib.request.urlopen(URL, timeout=5) as answer:  # noqa: S310 - a fixed address inside the project's network
        components = json.load(answer)
    return 0 if (components.get(sys.argv[1]) or {}).get("status") == "healthy" else 1


if __name__ == "__main__":
    sys.exit(main())
