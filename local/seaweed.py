"""S3 and the Iceberg REST catalog: `weed mini` of SeaweedFS, all of it in one process.

- Options travel in a file (`-options=`): the process list shows no secret and no long command line.
- `-tableBucket` makes the S3 Tables bucket that the REST catalog serves as warehouse `s3://lake/`; the OAuth2 client of
  the catalog is an S3 key pair (`credential: <access key>:<secret key>`), its token endpoint is the catalog's own.
- Every gRPC port defaults to the HTTP port + 10000, the admin server starts even with its UI off, and telemetry is on
  unless told otherwise.
"""

from __future__ import annotations

import urllib.error
import urllib.request

from local import ports
from local.paths import Home, venv_bin
from local.secrets import BUCKET, SQL_BUCKET


def prepare(home: Home) -> None:
    """Write the options file and make the data directory."""
    home.seaweed.mkdir(exist_ok=True, mode=0o700)
    options = {
        "dir": home.seaweed,
        "ip": ports.HOST,
        "ip.bind": ports.HOST,
        "master.telemetry": "false",
        "admin.ui": "false",
        "webdav": "false",
        "s3.config": home.secrets / "s3.json",
        "s3.port": ports.port("S3"),
        "s3.port.iceberg": ports.port("ICEBERG"),
        "s3.port.lance": 0,
        "s3.port.grpc": ports.port("WEED_S3_GRPC"),
        "master.port": ports.port("WEED_MASTER"),
        "master.port.grpc": ports.port("WEED_MASTER_GRPC"),
        "filer.port": ports.port("WEED_FILER"),
        "filer.port.grpc": ports.port("WEED_FILER_GRPC"),
        "volume.port": ports.port("WEED_VOLUME"),
        "volume.port.grpc": ports.port("WEED_VOLUME_GRPC"),
        "admin.port": ports.port("WEED_ADMIN"),
        "admin.port.grpc": ports.port("WEED_ADMIN_GRPC"),
        "tableBucket": BUCKET,
        "bucket": SQL_BUCKET,
    }
    (home.etc / "seaweedfs.conf").write_text("".join(f"{k}={v}\n" for k, v in options.items()))


def command(home: Home) -> list[str]:
    return [str(venv_bin("weed")), "mini", f"-options={home.etc / 'seaweedfs.conf'}"]


def answers(home: Home) -> bool:
    """Whether S3 and the catalog both answer. The catalog's own answer without a token is 401."""
    return _status(f"http://{ports.HOST}:{ports.port('S3')}/") in {200, 403} and _status(
        f"http://{ports.HOST}:{ports.port('ICEBERG')}/v1/config"
    ) in {200, 401}


def _status(url: str) -> int | None:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - a fixed loopback URL
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
