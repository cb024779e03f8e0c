"""Asks a running `gristmill serve sql` with the clients that people use; needs what `make clients` installs.

usage: clients.py http://127.0.0.1:PORT
"""

import io
import json
import sys
import urllib.error
import urllib.request

import adbc_driver_flightsql.dbapi as adbc
import pandas
import polars
import pyarrow
from openapi_spec_validator import validate

URL = sys.argv[1].rstrip("/")
FLIGHT = URL.replace("http://", "grpc://").replace("https://", "grpc+tls://")
COUNT = "select count(*) as n from documents"


def post(sql, kind):
    body = json.dumps({"sql": sql, "format": kind}).encode()
    request = urllib.request.Request(f"{URL}/query", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return answer.read()


n = json.loads(post(COUNT, "json"))["rows"][0]["n"]
assert n > 0, n
print(f"HTTP: {n} documents")

SOURCES = "select source, count(*) as n from documents group by source order by source"
assert pandas.read_csv(io.BytesIO(post(SOURCES, "csv"))).n.sum() == n
assert pandas.read_json(io.BytesIO(post(SOURCES, "ndjson")), lines=True).n.sum() == n
assert pyarrow.ipc.open_stream(post(SOURCES, "arrow")).read_all()["n"].to_pandas().sum() == n
print("HTTP: csv, ndjson and arrow agree")
validate(json.load(urllib.request.urlopen(f"{URL}/openapi.json")))
print("HTTP: /openapi.json is OpenAPI")

with adbc.connect(FLIGHT) as connection:
    with connection.cursor() as cursor:
        cursor.execute(COUNT)
        assert cursor.fetchone() == (n,)
        cursor.execute("select count(*) from documents where source = ?", parameters=["no such source"])
        assert cursor.fetchone() == (0,)
        cursor.execute("select id, text, date, metadata from documents limit 100")
        table = cursor.fetch_arrow_table()
        assert table.num_rows == min(n, 100) and table.schema.field("text").type == pyarrow.string(), table.schema
        for refused in ["create table t as select 1", "copy documents to 'x.csv'"]:
            try:
                cursor.execute(refused)
            except adbc.Error as error:
                assert "refused" in str(error), error
            else:
                raise AssertionError(f"{refused} was not refused")
    objects = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    tables = {
        table["table_name"]
        for catalog in objects
        for schema in catalog["catalog_db_schemas"]
        for table in schema["db_schema_tables"]
    }
    assert {"documents", "documents@1", "dropped", "manifests"} <= tables, tables
    schema = connection.adbc_get_table_schema("documents")
    assert schema.field("url").type == pyarrow.string(), schema
    assert connection.adbc_get_info()["vendor_name"] == "Gristmill"
    print(f"ADBC {adbc.apilevel}: rows, parameters, refusals, {len(tables)} tables")
    assert pandas.read_sql(SOURCES, connection).n.sum() == n
    print(f"pandas {pandas.__version__}: read_sql")
    assert polars.read_database(SOURCES, connection)["n"].sum() == n
    print(f"polars {polars.__version__}: read_database")
