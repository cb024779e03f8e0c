#!/usr/bin/env python3
"""with-s3.py COMMAND…: runs a command with an S3 server on loopback and the variables that lead to it.

The server is moto, in memory. It looks whether an object is there before it writes one, in two steps: so requests are served
one at a time, as `If-None-Match: *` demands of a store.
"""

import os
import subprocess
import sys
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "gristmill"


class Quiet(WSGIRequestHandler):
    """Says nothing of each request."""

    def log_request(self, *_):
        pass


def serialised(application):
    turn = threading.Lock()

    def serve(environ, start_response):
        with turn:
            return list(application(environ, start_response))

    return serve


def main():
    application = serialised(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    os.environ.update(variables)
    import boto3  # Reads the variables; it comes with moto.

    client = boto3.client("s3", endpoint_url=variables["AWS_ENDPOINT_URL"], region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    os.environ["GRISTMILL_S3"] = f"s3://{BUCKET}"
    sys.exit(subprocess.run(sys.argv[1:], check=False).returncode)


if __name__ == "__main__":
    main()
